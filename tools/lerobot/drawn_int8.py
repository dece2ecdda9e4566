"""Makes an INT8 bundle of a LeRobot folder without its dataset, calibrated on drawn observations: to be timed.

`edge-export --precision int8` calibrates on recorded observations, and a folder of random weights has none. How long an
engine takes does not depend on its scales. The arm is an SO-101 in degrees, as of all folders that are made here.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.policy_run import MADE_HERE
from edge.bundle import EngineSpec, Manifest
from export.engines.chain import draw_observations
from export.engines.lerobot import LeRobotExporter, read_policy
from export.engines.robot import find_robot
from export.engines.wired import Samples
from export.families.base import CheckpointError, Given
from export.families.lerobot.policy import Beside

VERIFIED_ON, CALIBRATED_ON = 2, 4


class DrawnExporter(LeRobotExporter):
    """Says in the manifest that it was made to be timed."""

    def manifest(self, engines: dict[str, EngineSpec], files: dict[str, str]) -> Manifest:
        return dataclasses.replace(super().manifest(engines, files), created_by=MADE_HERE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--vlm", type=Path, metavar="DIR")
    parser.add_argument("--rate", type=float, default=30.0, metavar="HZ")
    args = parser.parse_args()

    def stage(name: str, size: int) -> Callable[[], Any]:
        print(name, file=sys.stderr, flush=True)
        return lambda: None

    try:
        policy = read_policy(args.folder, beside=Beside(vlm=args.vlm))
        robot = find_robot(policy.folder, Given(arm="so101", rate_hz=args.rate, units="degrees"))
        verified, calibrated = draw_observations(policy, VERIFIED_ON, 0), draw_observations(policy, CALIBRATED_ON, 1)
        exporter = DrawnExporter(policy, robot, "int8", Samples(verified, calibrated, "drawn"), 0)
        report = exporter.write(args.out, stage)
    except CheckpointError as error:
        print(f"drawn_int8: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out}, to be timed; its agreement on drawn observations: {report['agreement']['whole_chunk']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
