"""What a run stands on: the line of an arm, and for a simulated one the scene around it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from edge.arms import ArmProfile
from edge.arms.bridge import SIMULATED, Bridge, behind, check_bridge, is_simulated, open_bridge
from edge.arms.drives import drive_url
from edge.cameras import assigned, check_camera, on_bench, split_name
from edge.errors import InputError
from edge.log.recorder import Samples
from edge.registry import missing
from edge.run.scratch import scratch_folder

BENCH = "edge.sim.bench"
"""Imported by name, like any driver: a robot does without it."""


class Workcell:
    """Opens the arm behind a bridge URL, and closes what it has opened.

    `scene_seed` places the objects of a simulated scene that suits `task`; None for an arm alone, which follows
    exactly. `cameras` are the URLs given, none for those of the scene; `trace` is written by a simulated device or an
    adapter.
    Raises `InputError` or `BridgeError`.
    """

    def __init__(
        self,
        arm: ArmProfile,
        url: str,
        scene_seed: int | None = 0,
        task: str = "",
        cameras: tuple[str, ...] = (),
        trace: Path | None = None,
    ) -> None:
        check_bridge(url, arm)
        if trace and url != SIMULATED and drive_url(url) is None:
            raise InputError("--trace comes from the simulated device or an adapter; give it to bridge-sim instead")
        for camera in cameras:
            check_camera(split_name(camera)[1])
        self.arm, self.url = arm, url
        self.scene_seed, self.given, self._trace = scene_seed, cameras, trace
        with ExitStack() as stack:
            self._bench = self._open_bench(stack, scene_seed, task, trace)
            self._opened = stack.pop_all()

    def _open_bench(self, stack: ExitStack, scene_seed: int | None, task: str, trace: Path | None) -> Any:
        """The simulated arm and its scene; around one that a simulator drives elsewhere, the scene alone; or None."""
        elsewhere = self.url != SIMULATED
        looks = not self.given or any(split_name(one)[1].startswith("sim:") for one in self.given)
        if scene_seed is None or (elsewhere and not (looks and is_simulated(self.url))):
            return None
        try:
            module = importlib.import_module(BENCH)
        except ImportError as error:
            raise InputError(missing("the simulated arm", error)) from None
        folder = stack.enter_context(scratch_folder())
        if elsewhere:
            return module.DrawnBench(self.arm, scene_seed, folder, task=task)
        bench = module.SimulatedBench(self.arm, scene_seed, folder, trace, task=task)
        stack.callback(bench.close)
        return bench

    @cached_property
    def bridge(self) -> Bridge:
        """The open line. Raises `InputError` or `BridgeError`."""
        if self._bench is not None and self.url == SIMULATED:
            bridge = behind(self._bench.process)
        else:
            bridge = open_bridge(self.url, self.arm, self._trace, self._bench.world_file if self._bench else None)
        self._opened.callback(bridge.close)
        return bridge

    def cameras(self, names: Sequence[str]) -> tuple[str, ...]:
        """The URL of each of a policy's cameras. Raises `InputError`."""
        if not self.given and self._bench is not None:
            return self._placed(self._bench.camera_urls(names))
        return self._placed(assigned(self.given, names))

    def given_cameras(self) -> tuple[str, ...]:
        """The URLs given alone, for a policy that needs none."""
        return self._placed(self.given)

    def _placed(self, cameras: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(on_bench(url, self._bench.folder) if self._bench else url for url in cameras)

    def verdict(self, task: str, samples: Samples) -> dict[str, Any] | None:
        """Whether the task was done, and held, as plain data; None without a scene that judges it."""
        verdict = self._bench.verdict(task, samples) if self._bench else None
        return verdict.to_plain() if verdict else None

    def close(self) -> None:
        """Frees the line and ends what stands behind it; traces and statistics are complete afterwards."""
        self._opened.close()
