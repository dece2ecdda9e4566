"""The tables of the precisions, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.tables import group_lines, markdown


def lines(body: dict[str, Any]) -> list[str]:
    """The tables, as Markdown."""
    rows = []
    for precision, found in body["precisions"].items():
        verification, success = found["verification"], found["closed_loop"]
        latent, whole = verification["agreement"]["backbone.z"], verification["agreement"]["whole_chunk"]
        rows.append(
            [
                precision.upper(),
                f"{sum(verification['size_bytes'].values()) / 1e6:.1f} MB",
                f"{latent['cosine']:.6f}",
                f"{whole['cosine']:.6f}, {whole['relative_rms']:.1e}, {whole['max_abs']:.1e}",
                f"{success['succeeded']} of {success['episodes']}",
            ]
        )
    head = ("", "size", "z' cosine", "whole chunk: cosine, relative, largest", "reached the cube")
    text = markdown(head, rows)
    for one in body["groups"]:
        text += ["", *group_lines(one)]
    return text
