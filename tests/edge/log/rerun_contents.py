"""What a recording of rerun's holds, as JSON: for each entity and component its times in ns and values.

Run by a Python that has rerun's SDK. A picture, and a frame of a video, is named by its SHA-256.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from typing import Any

from rerun.chunk import RrdReader

TIMELINE = "message_log_time"


def contents(path: str) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = {}
    for chunk in RrdReader(path).stream():
        if chunk.is_static or TIMELINE not in chunk.timeline_names:
            continue
        batch = chunk.to_record_batch()
        times = batch.column(TIMELINE).cast("int64").to_pylist()
        for name in (name for name in batch.schema.names if ":" in name):
            values = batch.column(name).to_pylist()
            if name in ("EncodedImage:blob", "VideoStream:sample"):
                values = [[sha256(bytes(value[0])).hexdigest()] for value in values]
            elif name == "Tensor:data":
                values = [[len(value)] for value in values]
            found.setdefault(chunk.entity_path, {}).setdefault(name, []).extend(zip(times, values))
    return {entity: {name: sorted(rows) for name, rows in of.items()} for entity, of in found.items()}


if __name__ == "__main__":
    json.dump(contents(sys.argv[1]), sys.stdout)
