"""Checkpoints of the family `table`: a text file with one row of increments a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import VERIFICATION, EmbodimentSpec, EngineSpec, Manifest, PolicyShape, SlotScaling, TensorSpec, sha256
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

    def write(self, out: Path, stage: Stage) -> dict[str, Any]:
        out.mkdir()
        np.save(out / "table.npy", self._rows)
        report = {"passed": True, "agreement": {}, "negative_control": {"caught": True}}
        (out / VERIFICATION).write_text(json.dumps(report))
        horizon, joints = self._rows.shape
        same = SlotScaling(tuple(range(joints)), (0.0,) * joints, (1.0,) * joints)
        rows = TensorSpec("rows", "float64", (horizon, joints))
        manifest = Manifest(
            policy=PolicyShape(horizon, 1, joints, joints, 0, 1, (32, 32), 0, 0, 0.0, horizon // 2),
            embodiments=(EmbodimentSpec("fr3", 0, 0.1, tuple(f"joint{n}" for n in range(joints)), same, same),),
            engines={"table": EngineSpec("table.npy", (), (rows,))},
            precision="fp64",
            checkpoint_sha256=self._digest,
            created_by="vla-outside 1.0",
            files={path.name: sha256(path) for path in sorted(out.iterdir())},
            family="table",
        )
        (out / "manifest.json").write_text(manifest.to_json())
        return report
