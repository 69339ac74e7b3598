"""`python -m tests.benchmarks.zoo`: what exporters write of many architectures, taken through the importer and back."""
