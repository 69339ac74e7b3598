"""The delivered files, one module per format, each with write and read; and their check in stock ONNX Runtime."""
