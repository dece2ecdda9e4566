"""Records what a stream is told once, and replays it with one call.

pycuda has no interface for graphs; `cuda-bindings` has, and takes pycuda's stream handles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.engines.base import EngineError


class CudaGraph:
    """The work of one run. Memory addresses are part of it, so they must not change afterwards."""

    def __init__(self, stream_handle: int, work: Callable[[], None]) -> None:
        from cuda.bindings import runtime as cudart

        self._cudart, self._stream = cudart, stream_handle
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(cudart.cudaStreamBeginCapture, stream_handle, mode)
        try:
            work()
        finally:
            graph = self._call(cudart.cudaStreamEndCapture, stream_handle)
        self._graph = self._call(cudart.cudaGraphInstantiate, graph, 0)
        self._call(cudart.cudaGraphDestroy, graph)

    def launch(self) -> None:
        self._call(self._cudart.cudaGraphLaunch, self._graph, self._stream)

    def close(self) -> None:
        self._call(self._cudart.cudaGraphExecDestroy, self._graph)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        status, *results = function(*arguments)
        if int(status) != 0:
            raise EngineError(f"CUDA: {function.__name__} failed with {status.name}")
        return results[0] if results else None


def capture(stream_handle: int, work: Callable[[], None]) -> tuple[CudaGraph | None, str]:
    """The recorded graph, or None and why there is none: then every run enqueues its work anew, slower but the same."""
    try:
        return CudaGraph(stream_handle, work), ""
    except ModuleNotFoundError:
        return None, "no CUDA graph: pip install cuda-bindings"
    except EngineError as error:
        return None, f"no CUDA graph: {error}"
