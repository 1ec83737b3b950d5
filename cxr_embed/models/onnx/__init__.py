"""ONNX graphs, run by ONNX Runtime (extra `onnx`)."""
