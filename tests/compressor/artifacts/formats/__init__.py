"""Files of every released format_version, which all later versions must read. `python -m tests.compressor.artifacts.formats.make` writes
those of the present one."""
