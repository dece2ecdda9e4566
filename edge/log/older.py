"""What older logs hold: records from before bundles of format 2, in today's form, and the messages as they were.

Until files of profile `vla-edge-2` the positions of joints were a row, and tables of numbers were arrays in arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edge.inference.layout import head_and_arrays
from edge.inference.records import PlanRequest, PlanResult
from edge.log.records import Kind, Record
from edge.log.topics import Message, Messages

STAGES = ("history", "backbone", "decoder")
"""The three engines that every policy had."""
ADDED = {"/plan/request": ("measured_rad", "commanded_rad"), "/plan/result": ("goals_rad",)}
"""Fields that messages of these topics did not have."""
NEW_TOPICS = ("/notices",)
FIRST_PROFILE = "vla-edge-1"


def upgraded(record: Record) -> Record | None:
    """The record in today's form; None for one that is. Raises `ValueError` and `TypeError`."""
    if record.kind is Kind.REQUEST:
        values = head_and_arrays(record.body)
        if "measured_rad" not in values:
            nothing = np.zeros((0, values["states_rad"].shape[1]))
            return replace(record, body=PlanRequest(**values, measured_rad=nothing, commanded_rad=nothing).pack())
    if record.kind is Kind.RESULT:
        values = head_and_arrays(record.body)
        if "decoder_ns" in values:
            times = np.array([values.pop(f"{stage}_ns") for stage in STAGES])
            nothing = np.zeros((0, values["increments_rad"].shape[1]))
            return replace(record, body=PlanResult(**values, engine_ns=times, goals_rad=nothing).pack())
    return None


def messages_then(messages: Messages, record: Record, profile: str) -> tuple[Record, list[Message]]:
    """The record of a file with this profile in today's form, and its messages as they were. Raises `ValueError`,
    `TypeError`, `KeyError`."""
    older = upgraded(record)
    found = messages.of(older or record)
    if profile == FIRST_PROFILE:
        found = [(topic, _plain(content)) for topic, content in found if topic not in NEW_TOPICS]
    if older is None:
        return record, found
    return older, [(topic, _format_1(topic, content)) for topic, content in found]


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Positions as a row, tables as arrays in arrays."""
    then: dict[str, Any] = {}
    for name, value in content.items():
        if name == "joints":
            then["position_rad"] = [joint["position"] for joint in value]
        elif name != "timestamp":
            table = isinstance(value, list) and len(value) > 0 and isinstance(value[0], dict)
            then[name] = [row["joints"] for row in value] if table else value
    return then


def _format_1(topic: str, content: dict[str, Any]) -> dict[str, Any]:
    then = {name: value for name, value in content.items() if name not in ADDED.get(topic, ())}
    if topic == "/latency":
        then |= {f"{stage}_ms": value for stage, value in zip(STAGES, then.pop("engine_ms"))}
    return then
