"""Built engines on disk, each under a key of everything it depends on.

An engine fits one graph, one TensorRT, one kind of GPU. Another one would not load, or crash; so the key is part of the
file's name, and a change of any of them is simply an engine that has not been built yet.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.bundle.files import replacing
from edge.engines.base import EngineError

FOLDER = "tensorrt"
KEY_LENGTH = 16


@dataclass(frozen=True)
class EngineKey:
    """What a built engine depends on. `sm` holds the compute capabilities it was built for."""

    engine: str
    graph_sha256: tuple[str, ...]
    library: str
    version: str
    sm: tuple[int, ...]
    precision: str
    shapes: tuple[tuple[str, str, tuple[int, ...]], ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


@dataclass(frozen=True)
class EngineRecord:
    """What is known of a built engine. `checked` is None until it has run beside ONNX Runtime on its GPU."""

    key: EngineKey
    plan_sha256: str
    plan_bytes: int
    scratch_bytes: int
    build_s: float
    layers: dict[str, int]
    checked: dict[str, Any] | None


def engine_key(bundle: Bundle, engine: str, library: str, version: str, sm: tuple[int, ...]) -> EngineKey:
    manifest = bundle.manifest
    spec = manifest.engines[engine]
    hashes = tuple(manifest.files[name] for name in sorted(spec.files))
    shapes = tuple((tensor.name, tensor.dtype, tensor.shape) for tensor in (*spec.inputs, *spec.outputs))
    return EngineKey(engine, hashes, library, version, tuple(sorted(sm)), manifest.precision, shapes)


class EngineCache:
    """The folder of built engines; `<engine>.<key>.plan` with a record beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def timing(self) -> Path:
        """TensorRT's own notes on how fast its kernels are here, which make the next build short."""
        return self.folder / "timing.cache"

    def plan(self, key: EngineKey) -> Path:
        return self.folder / f"{key.engine}.{key.digest}.plan"

    def find(self, key: EngineKey) -> EngineRecord | None:
        """The record of an engine that is there and whole; None when it has to be built."""
        record, plan = self._record(key), self.plan(key)
        if record is None or not plan.is_file() or plan.stat().st_size != record.plan_bytes:
            return None
        return record

    def require(self, key: EngineKey) -> tuple[bytes, EngineRecord]:
        """A built and checked engine. Raises `EngineError` with what to do."""
        record = self.find(key)
        if record is None:
            others = sorted(self.folder.glob(f"{key.engine}.*.plan"))
            why = "was built for another GPU, TensorRT or bundle" if others else "has not been built"
            raise EngineError(
                f"the TensorRT engine of {key.engine} {why} (here: {key.library} {key.version}, SM "
                f"{', '.join(map(str, key.sm))}, {key.precision}); run edge-build on this machine"
            )
        if record.checked is None or record.checked.get("passed") is not True:
            state = "has never run beside ONNX Runtime" if record.checked is None else "does not match ONNX Runtime"
            raise EngineError(
                f"the TensorRT engine of {key.engine} {state} and must not drive an arm; run edge-build on this machine"
            )
        plan = self.plan(key).read_bytes()
        if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
            raise EngineError(
                f"{self.plan(key)}: its content has changed since it was built; delete it and run edge-build"
            )
        return plan, record

    def store(self, record: EngineRecord, plan: bytes | None = None) -> None:
        """Writes an engine and its record, or the record alone when the check has added to it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.plan(record.key)
        if plan is not None:
            _write(path, plan)
        _write(path.with_suffix(".json"), (json.dumps(asdict(record), indent=2) + "\n").encode())

    def _record(self, key: EngineKey) -> EngineRecord | None:
        try:
            document = json.loads(self.plan(key).with_suffix(".json").read_text(encoding="utf-8"))
            del document["key"]
            return EngineRecord(key=key, **document)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)
