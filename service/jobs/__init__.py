"""The jobs table: what a job is, which states it goes through, and all SQL about it."""
