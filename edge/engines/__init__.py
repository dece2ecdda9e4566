"""Engines: what runs a graph of the bundle. Each is opened by name, with all its memory allocated up front."""

from edge.engines.base import Engine, EngineDriver, EngineError
from edge.engines.onnxruntime_engine import OnnxRuntimeEngine
from edge.engines.opening import DEFAULT_ENGINE, ENGINES, check_engines, engine_choices, open_engines

__all__ = [
    "DEFAULT_ENGINE",
    "ENGINES",
    "Engine",
    "EngineDriver",
    "EngineError",
    "OnnxRuntimeEngine",
    "check_engines",
    "engine_choices",
    "open_engines",
]
