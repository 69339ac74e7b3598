"""The architectures, each function giving a `Built`. They run in the exporters' environments: nothing of the project is imported here."""
