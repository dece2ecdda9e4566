"""From torch modules to three verified ONNX engines in one bundle."""
