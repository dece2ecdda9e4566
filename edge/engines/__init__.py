"""Engines: what runs a graph of the bundle. Each is opened by name, with all its memory allocated up front."""

from edge.engines.base import Engine, EngineError
from edge.engines.onnxruntime_engine import OnnxRuntimeEngine

__all__ = ["Engine", "EngineError", "OnnxRuntimeEngine"]
