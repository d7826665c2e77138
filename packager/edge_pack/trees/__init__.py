"""Tree ensembles of every library in one form, and from it to ONNX without a changed label."""
