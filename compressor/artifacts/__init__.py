"""The delivered files, one module per format, each with write and read; and their check in stock ONNX Runtime."""

import os

# From 1.32 on ONNX Runtime reports to its maker over the network, and keeps a database in the user's cache, unless this is set before its
# first import. Nobody who compresses a model has agreed to that; who sets the variable themselves is left alone.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
