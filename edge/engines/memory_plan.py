"""Whether a bundle fits a machine: weights, activations, and the peak while its engines are built, with the arithmetic.

The figures of a board are NVIDIA's data sheets' (module memory, dense INT8 and FP16 peaks, bandwidth). What the plan
adds to the sizes of the files is a model, stated term by term; it has not been compared with a Jetson yet.
"""

from __future__ import annotations

from dataclasses import dataclass

MB = 1e6
SYSTEM_BYTES = 2.5e9
"""Desktop-less Jetson Linux, display buffers and carve-outs: an Orin Nano of 8 GB has 5.5 to 6 GB left."""
RUNTIME_BYTES = 0.9e9
"""CUDA context with TensorRT's libraries (about 0.6 GB), Python with the control and inference processes (0.3 GB)."""


@dataclass(frozen=True)
class Target:
    """A board: memory shared by CPU and GPU in bytes, bandwidth in bytes/s, dense peaks in operations/s."""

    name: str
    sm: int
    memory_bytes: float
    bandwidth: float
    fp16_flops: float
    int8_ops: float

    @property
    def usable_bytes(self) -> float:
        return self.memory_bytes - SYSTEM_BYTES


TARGETS = {
    "orin-nano": Target("Orin Nano 8 GB (Super)", 87, 8e9, 102e9, 16.7e12, 33.4e12),
    "orin-nx": Target("Orin NX 16 GB", 87, 16e9, 102.4e9, 15.0e12, 30.1e12),
    "agx-orin": Target("AGX Orin 64 GB", 87, 64e9, 204.8e9, 42.6e12, 85.2e12),
    "thor": Target("AGX Thor T5000 128 GB", 110, 128e9, 273e9, 258.5e12, 517e12),
}


@dataclass(frozen=True)
class EngineDemand:
    """What one engine needs, bytes: its weights, its activations, and what it reads of its weights per chunk."""

    name: str
    weights: int
    activations: int
    reads: int


@dataclass(frozen=True)
class MemoryPlan:
    """The sums, bytes; `floor_s` is the time to read every weight as often as a chunk needs it."""

    target: Target
    running: float
    building: float
    largest: str
    floor_s: float

    @property
    def runs(self) -> bool:
        return self.running <= self.target.usable_bytes

    @property
    def builds(self) -> bool:
        return self.building <= self.target.usable_bytes


def memory_plan(target: Target, demands: list[EngineDemand], workspace_bytes: int) -> MemoryPlan:
    """Engines are built one by one, the largest first. While one is built, TensorRT holds its weights three times:
    as parsed from the file, on the device to time kernels with, and in the serialized engine."""
    running = RUNTIME_BYTES + sum(demand.weights + demand.activations for demand in demands)
    peaks = {
        demand.name: RUNTIME_BYTES + 3 * demand.weights + demand.activations + workspace_bytes for demand in demands
    }
    largest = max(peaks, key=lambda name: peaks[name])
    floor_s = sum(demand.reads for demand in demands) / target.bandwidth
    return MemoryPlan(target, running, peaks[largest], largest, floor_s)


def explain(plan: MemoryPlan, demands: list[EngineDemand], workspace_bytes: int) -> list[str]:
    """The plan in lines, every term in it."""
    target = plan.target
    lines = [
        f"{target.name}: {target.memory_bytes / 1e9:.0f} GB, less {SYSTEM_BYTES / 1e9:.1f} for the system: "
        f"{target.usable_bytes / 1e9:.1f} GB usable"
    ]
    lines += [
        f"  {demand.name:<16} weights {demand.weights / MB:8.1f} MB, activations {demand.activations / MB:6.1f} MB"
        for demand in demands
    ]
    verdict = {True: "fits", False: "DOES NOT FIT"}
    worst = next(demand for demand in demands if demand.name == plan.largest)
    lines.append(
        f"  running  {plan.running / MB:8.1f} MB = {RUNTIME_BYTES / MB:.0f} runtime + all weights + all activations: "
        f"{verdict[plan.runs]}"
    )
    lines.append(
        f"  building {plan.building / MB:8.1f} MB = {RUNTIME_BYTES / MB:.0f} runtime + 3 x {worst.weights / MB:.1f} "
        f"weights + {worst.activations / MB:.1f} activations + {workspace_bytes / MB:.0f} workspace ({worst.name}): "
        f"{verdict[plan.builds]}"
    )
    read = sum(demand.reads for demand in demands)
    lines.append(
        f"  a chunk reads {read / MB:.1f} MB of weights: at least {1e3 * plan.floor_s:.2f} ms at "
        f"{target.bandwidth / 1e9:.0f} GB/s (the decoder's once per flow step)"
    )
    if not (plan.runs and plan.builds):
        lines.append(
            "  a lower precision (edge-export --precision) or fewer layers would have to make up the difference"
        )
    return lines
