"""Idempotency keys: which request a client has sent before, and which job came of it."""
