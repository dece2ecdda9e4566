"""Finds TensorRT, in whichever of its forms is installed, and hides what changed between 10.3 and 11.

`tensorrt` comes with JetPack (10.3 on JetPack 6.2, 10.13 and 10.16 on 7) and builds for the GPU it runs on.
`tensorrt_rtx` is a wheel on PyPI with the same interface for RTX GPUs; it builds on a machine that has no GPU at all.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

from edge.engines.base import EngineError

OLDEST = (10, 3)
FIX = (
    "on a Jetson it comes with JetPack (apt install python3-libnvinfer; a virtual environment needs "
    "--system-site-packages); on a PC with an RTX GPU: pip install 'vla-edge[rtx]'"
)


@dataclass(frozen=True)
class TensorRt:
    """The module that is installed, `tensorrt` or `tensorrt_rtx`, and its version."""

    module: Any
    name: str
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether it can build for GPUs that are not there."""
        return self.name == "tensorrt_rtx"

    def logger(self) -> tuple[Any, list[str]]:
        """The library's logger, and the errors it has reported since this call.

        There is one for the process: TensorRT keeps the first logger it is given as long as anything of its lives, and
        has no effect on a later one.
        """
        logger, errors = _collector(self.module)
        errors.clear()
        return logger, errors

    def network_flags(self) -> int:
        """Strongly typed: the graph says what is computed in which precision. 11 knows nothing else."""
        return 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def device_memory_bytes(self, engine: Any) -> int:
        """Scratch memory of one execution; 11 has only the second name."""
        size = getattr(engine, "device_memory_size_v2", None)
        return int(engine.device_memory_size if size is None else size)


@functools.cache
def _collector(trt: Any) -> tuple[Any, list[str]]:
    errors: list[str] = []

    class Collector(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                errors.append(message)

    return Collector(), errors


def find_tensorrt() -> TensorRt:
    """The installed library, JetPack's own before the wheel. Raises `EngineError`."""
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            raise EngineError(f"{name} is installed but does not load ({str(error)[:120]}); install it again") from None
        found = TensorRt(module, name, str(module.__version__))
        if not found.is_rtx and _number(found.version) < OLDEST:
            raise EngineError(f"TensorRT {found.version} is too old, 10.3 or newer is needed; update JetPack to 6.2")
        return found
    raise EngineError(f"TensorRT is not installed; {FIX}")


def error_text(errors: list[str]) -> str:
    """The library's last error, cut to what fits into one line."""
    text = " ".join(errors[-1].split()) if errors else "it gave no reason"
    return text[:240]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
