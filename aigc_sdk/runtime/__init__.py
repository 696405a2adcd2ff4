"""Running model files with onnxruntime: safe loading, devices, sessions, and the generator over them."""

from aigc_sdk.runtime.onnx_generator import OnnxGenerator

__all__ = ["OnnxGenerator"]
