"""`edge-calibrate`: a guided calibration of an arm of bus servos."""

from __future__ import annotations

import argparse
import math
import os
import select
import sys
from pathlib import Path

from edge.arms import ArmProfile, load_arm
from edge.arms.feetech import FeetechUrl, feetech_url, joint_spans
from edge.cli.parser import add_version, complain, described
from edge.errors import InputError, VlaEdgeError
from edge.run.outputs import check_outputs
from firmware_bridge.adapters.feetech.bus import open_bus
from firmware_bridge.adapters.feetech.guide import Calibrator
from firmware_bridge.errors import BridgeError

LOOK_S = 0.02


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-calibrate",
        **described(
            "Finds the middle and the range of every joint of an SO-101, moved by hand with the torque off, "
            "and writes them into the servos and into a file for edge-run.",
            """
            edge-calibrate --arm so101 --drive feetech:/dev/ttyACM0 -o so101-calibration.json
            edge-calibrate --arm so101 --drive feetech:/dev/ttyACM0 --let-go    # torque off, nothing else
            """,
            "Each step is one line that waits for Enter, also from a script. Exit codes: 0 done, 2 bad input or "
            "nothing that can be used; the servos' torque stays off.",
        ),
    )
    add_version(root)
    add = root.add_argument
    add("--arm", required=True, metavar="NAME", help="so101")
    add("--drive", required=True, metavar="URL", help=FeetechUrl.FORM.partition("?")[0])
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="calibration to write (default NAME-calibration.json), in place of an older one, and of nothing else",
    )
    add("--invert", action="append", default=[], metavar="JOINT", help="counts of this joint grow against its sense")
    add("--let-go", action="store_true", help="take the torque away and leave: for an arm that was left holding")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return _calibrate(args)
    except (VlaEdgeError, BridgeError) as error:
        complain("edge-calibrate", error)
        return 2
    except KeyboardInterrupt:
        print("\nedge-calibrate: stopped; calibrate again before the arm is used", file=sys.stderr)
        return 2


def _calibrate(args: argparse.Namespace) -> int:
    arm, url = load_arm(args.arm), feetech_url(args.drive)
    if arm.parts:
        side, part = arm.parts[0]
        raise InputError(
            f"'{arm.name}' is {len(arm.parts)} arms, each with a calibration of its own: edge-calibrate "
            f"--arm {part.name} --drive feetech:PORT -o {arm.name}-{side}-calibration.json, and so on"
        )
    output = args.output or url.buses(arm)[0].file
    unknown = sorted(set(args.invert) - set(arm.joints))
    for jaw in (arm.joints[axis] for axis in arm.grippers):
        if jaw in args.invert:
            raise InputError(f"--invert {jaw}: where the jaw is closed says which way it opens; leave it out")
    if unknown:
        raise InputError(f"--invert {unknown[0]}: the joints are {', '.join(arm.joints)}")
    if not args.let_go:
        check_outputs({"-o": (output, "calibration")}, [Path(args.arm)], None)
    bus = open_bus(url.target)
    try:
        calibrator = Calibrator(bus, arm.name, joint_spans(arm), args.invert)
        _let_go(calibrator)
        if not args.let_go:
            _guide(calibrator, arm, output)
    finally:
        bus.port.close()
    return 0


def _let_go(calibrator: Calibrator) -> None:
    holding = calibrator.holding
    if holding:
        _wait_for_enter(f"{', '.join(holding)} will fall: take the arm in hand, then press Enter")
    calibrator.let_go()


def _guide(calibrator: Calibrator, arm: ArmProfile, output: Path) -> None:
    _wait_for_enter("Move every joint to the middle of its range, then press Enter")
    calibrator.take_middle()
    print("Sweep every joint from stop to stop, one after the other, then press Enter", flush=True)
    told: dict[str, tuple[float, float]] = {}
    while True:
        while not _entered(LOOK_S):
            calibrator.look()
        calibrator.look()
        missing = calibrator.missing
        if not missing or missing == told:  # pressed again: that is as far as they go
            break
        told = missing
        for joint, (swept_rad, wanted_rad) in missing.items():
            print(f"{joint}: swept {math.degrees(swept_rad):.0f} of {math.degrees(wanted_rad):.0f} degrees")
        print("Go on, then press Enter; once more where that is all, and it is operated within its sweep", flush=True)
    if arm.grippers:
        _wait_for_enter("Close the jaw all the way, then press Enter")
        while problem := calibrator.take_closed():
            _wait_for_enter(f"{problem}, then press Enter")
    calibration = calibrator.finish()
    calibration.write(output)
    for one in calibration.servos:
        print(f"{one.joint:<14} servo {one.servo}  offset {one.homing_offset:>5}  {one.range_min:>4}..{one.range_max}")
    print(f"wrote {output}; edge-run --arm {arm.name} --bridge 'feetech:PORT?calibration={output}' uses it")


def _wait_for_enter(text: str) -> None:
    print(text, flush=True)
    while not _entered(None):
        pass


def _entered(seconds: float | None) -> bool:
    """Whether Enter comes within `seconds`. Raises `InputError` when nobody can press it any more."""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return False
    while byte := os.read(sys.stdin.fileno(), 1):
        if byte == b"\n":
            return True
    raise InputError("the input has ended before the calibration was done; no file was written")


if __name__ == "__main__":
    sys.exit(main())
