"""Mutants of real model files: `python -m tests.benchmarks.fuzz`."""
