"""The run's side of the live page."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge.doors.view.server import HOST
from edge.doors.view.snapshot import PRESSES, Phase, ViewRecords, of_report, of_run
from edge.errors import InputError
from edge.inference.film import CameraView, NewestFrames
from edge.inference.layout import Newest
from edge.realtime.scheduler import FixedStep
from edge.run.commands import CommandQueue, Verdict
from edge.run.controller import Controller
from edge.run.motion import Motion
from firmware_bridge.children import ended_on_error, start_module
from firmware_bridge.messages import StateReport


class LiveView:
    """Starts the page's process. `publish` and `pass_on` are for the loop: they neither wait nor allocate for long."""

    def __init__(self, joints: int, about: dict[str, Any], port: int = 0, cameras: Sequence[CameraView] = ()) -> None:
        self.frames = NewestFrames([view.frame_px for view in cameras]) if cameras else None
        self._records = ViewRecords(joints)
        self._shown = self._records.blank
        self._pressed = np.zeros(len(PRESSES), dtype=np.int64)
        self._presses = Newest(self._records.presses)
        token = secrets.token_urlsafe(24)
        descriptor = self._records.memory.descriptor
        arguments, descriptors = (
            ["--memory", str(descriptor), "--joints", str(joints), "--port", str(port)],
            [descriptor],
        )
        if self.frames is not None:
            descriptors.append(self.frames.memory.descriptor)
            sizes = json.dumps([view.frame_px for view in cameras])
            arguments += ["--frames", str(descriptors[1]), "--sizes", sizes]
        self.process = start_module(
            "edge.doors.view.server",
            arguments,
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        first = {"token": token, "about": {**about, "cameras": [view.name for view in cameras]}}
        with ended_on_error(self.process):
            self.process.stdin.write(json.dumps(first) + "\n")
            self.process.stdin.close()
            answer = json.loads(self.process.stdout.readline() or '{"error": "its process did not start"}')
            if "port" not in answer:
                raise InputError(f"--view: {answer['error']}; choose another with --view-port")
        self.url = f"http://{HOST}:{answer['port']}/#{token}"
        self._show()

    def publish(self, controller: Controller, loop: FixedStep | None) -> None:
        """Shows the run as it is now."""
        self._show(phase=Phase.RUNNING.value, **of_run(controller, loop))

    def publish_report(self, report: StateReport, device_us: int) -> None:
        """Shows the device before anything is armed, or while it stops; `device_us` is its time, unwrapped."""
        begun = self._shown.phase == Phase.RUNNING.value
        stage = {"motion": Motion.STOPPING.value} if begun else {"phase": Phase.WAITING.value}
        self._show(**stage, **of_report(report, device_us))

    def begin(self, note: str) -> None:
        """Another run begins: what was shown of the one before goes."""
        self._shown = replace(self._records.blank, note=note, phase=Phase.WAITING.value)
        self._show()

    def note(self, text: str) -> None:
        """A line that stays on the page until the next one; shown with the next `publish`."""
        self._show(note=text)

    def _show(self, **changes: Any) -> None:
        self._shown = replace(self._shown, **changes)
        self._records.snapshots.write(self._shown)

    def pass_on(self, commands: CommandQueue) -> None:
        """Takes presses of the page's buttons to the commands."""
        presses = self._presses.take()
        if presses is None:
            return
        counts = presses.counts
        for number, pressed in enumerate(PRESSES):
            if counts[number] > self._pressed[number]:
                if isinstance(pressed, Verdict):
                    commands.judge(pressed)
                else:
                    commands.put(pressed)
        self._pressed[:] = counts

    def close(self) -> None:
        """Ends the page; those who look at it are told."""
        self._show(phase=Phase.ENDED.value)
        self.process.terminate()
        self.process.wait()
