"""The service: HTTP, terminal and worker around the library. Imports no torch, anywhere."""
