"""An ONNX file and back: validated, run as one trainable torch module, and written again with other weights."""
