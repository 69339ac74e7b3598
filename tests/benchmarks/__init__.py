"""Benchmarks: `python -m tests.benchmarks.NAME`. Each prints a table and writes JSON on request; none runs with the tests."""
