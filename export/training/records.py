"""What a run leaves of its steps: one JSON line each, and the same numbers for TensorBoard.

The lines hold no time of day, so that a run that was stopped and resumed leaves the same file as one that was not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from edge.bundle.files import replacing

Record = dict[str, float]


class Records:
    """Appends to `<name>.metrics.jsonl`. Records from `first` on, of steps that are computed again, are dropped."""

    def __init__(self, folder: Path, name: str, first: int, tensorboard: bool) -> None:
        self.path = folder / f"{name}.metrics.jsonl"
        _truncate(self.path, first)
        self._file = self.path.open("a", encoding="utf-8")
        self._board: SummaryWriter | None = None
        if tensorboard:
            self._board = SummaryWriter(str(folder / "tensorboard" / name), purge_step=first)

    def write(self, record: Record, speed_hz: float | None = None) -> None:
        """One step. `speed_hz`, steps per second, goes to TensorBoard only."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            step = int(record["step"])
            for name, value in record.items():
                if name != "step":
                    self._board.add_scalar(name, value, step)
            if speed_hz is not None:
                self._board.add_scalar("steps_per_second", speed_hz, step)

    def settle(self) -> None:
        """Everything so far is on the disk: a saved state must not be ahead of its records."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_records(path: Path) -> list[Record]:
    """The whole records of a file; a last line that was cut short is none."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _truncate(path: Path, first: int) -> None:
    kept = [record for record in read_records(path) if record["step"] < first]
    with replacing(path) as partial:
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
