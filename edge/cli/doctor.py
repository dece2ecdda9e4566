"""`edge-doctor`: opens what a run would use, reports what it found, and names the fix of whatever is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge.arms import ArmProfile, available_arms
from edge.arms.bridge import SIMULATED, Bridge, behind, bridge_forms, check_bridge, open_bridge
from edge.bundle import Bundle
from edge.cameras import CAMERAS, assigned, looks_at_bench, on_bench, read_camera, split_name
from edge.cli.parser import TRUST, add_version, complain, described
from edge.doctor import machine, rights
from edge.doctor.bridge import check_bridge as check_device
from edge.doctor.cameras import against_rate, check_camera
from edge.doctor.check import Check, document, line, passed
from edge.doctor.policy import bundle_bytes, check_arm, check_bundle, check_fit, check_inference, check_stops
from edge.doctor.servos import check_servos
from edge.errors import InputError, VlaEdgeError
from edge.registry import missing
from edge.run.outputs import check_outputs
from edge.run.report import write_report
from edge.run.scratch import scratch_folder
from firmware_bridge.errors import BridgeError, PortError

FRAME_PX = (224, 224)
"""What cameras are fitted to without a bundle."""
ROOT = Path("/")


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-doctor",
        **described(
            "Checks this computer, and whatever of a run is named: bundle, arm, bridge, cameras. It never arms.",
            """
            edge-doctor
            edge-doctor --bundle bundle --arm franka --bridge sim: --camera sim:
            edge-doctor --arm so101 --bridge feetech:/dev/ttyACM0 --json doctor.json
            """,
            "Exit codes: 0 nothing failed (warnings are allowed), 1 a check failed, or Ctrl-C came first, 2 bad input.",
        ),
    )
    add_version(root)
    add = root.add_argument
    add("--bundle", type=Path, metavar="DIR", help="folder made by edge-export: hashes, engines, two inferences")
    add("--trust", type=Path, metavar="KEY", help=TRUST)
    add("--arm", metavar="NAME", help=f"arm profile: {', '.join(available_arms())}, or a .toml file")
    add(
        "--bridge",
        metavar="URL",
        help=f"needs --arm: {bridge_forms()}",
    )
    add(
        "--camera",
        action="append",
        default=[],
        metavar="URL",
        help=f"watched for a second each; repeat for more: {CAMERAS.forms()}",
    )
    add(
        "--task",
        metavar="TEXT",
        help="the instruction for the inference (default: the bundle's own)",
    )
    add("--threads", type=int, default=1, metavar="N", help="threads per engine (default %(default)d)")
    add("--json", type=Path, metavar="FILE", help="all findings, with figures")
    return root


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Runs the checks. `root` stands in for / where files of /sys and /proc are read."""
    args = parser().parse_args(argv)
    checks: list[Check] = []
    try:
        _check_input(args)
        with ExitStack() as stack:
            for check in _checks(args, root, stack):
                checks.append(check)
                print(line(check), flush=True)
        if args.json:
            _write(args.json, checks)
    except VlaEdgeError as error:
        complain("edge-doctor", error)
        return error.exit_code
    except PortError as error:
        complain("edge-doctor", error)
        return 2
    except KeyboardInterrupt:
        print("\nedge-doctor: stopped before all checks were made", file=sys.stderr)
        return 1
    return 0 if passed(checks) else 1


def _write(path: Path, checks: list[Check]) -> None:
    try:
        write_report(path, document(checks))
    except OSError as error:
        raise VlaEdgeError(f"--json {path}: {error.strerror}; the findings are above") from None


def _check_input(args: argparse.Namespace) -> None:
    """What cannot be understood is refused before anything is opened. Raises `InputError` or `PortError`."""
    if args.json:
        check_outputs({"--json": (args.json, "report")}, [path for path in (args.bundle, args.trust) if path], None)
    if args.trust and not args.bundle:
        raise InputError("--trust checks a bundle's signature; add --bundle DIR")
    if args.bridge and not args.arm:
        raise InputError("--bridge compares the device with a profile; add --arm NAME")
    if args.bridge:
        check_bridge(args.bridge)
    for url in (split_name(text)[1] for text in args.camera):
        read_camera(url)
        if looks_at_bench(url) and args.bridge != SIMULATED:
            raise InputError(f"--camera {url}: the simulated camera looks at a simulated arm; add --bridge sim:")


def _checks(args: argparse.Namespace, root: Path, stack: ExitStack) -> Iterator[Check]:
    arm_check, arm = check_arm(args.arm) if args.arm else (Check.skipped("arm", "--arm NAME"), None)
    bundle_check, bundle = (
        check_bundle(args.bundle, args.trust) if args.bundle else (Check.skipped("bundle", "--bundle DIR"), None)
    )
    yield from _machine_checks(root, bundle)
    yield arm_check
    if arm is not None:
        yield check_stops(arm)
    yield bundle_check
    if bundle is not None and arm is not None:
        yield check_fit(bundle, arm)
    yield _inference(args, bundle, arm)
    yield from _device_checks(args, arm, bundle, stack)


def _machine_checks(root: Path, bundle: Bundle | None) -> Iterator[Check]:
    granted = rights.probe()
    yield machine.check_python(sys.version_info[:3])
    yield machine.check_packages(_version)
    yield machine.check_core()
    yield machine.check_cores(root, len(os.sched_getaffinity(0)))
    yield machine.check_kernel(root)
    yield machine.check_governor(root)
    yield machine.check_memory(root, bundle_bytes(bundle) if bundle else None)
    yield machine.check_shared_memory()
    yield rights.check_priority(granted)
    yield rights.check_locked_memory(granted)
    yield rights.check_serial_rights(rights.my_groups(), os.geteuid() == 0)
    yield rights.check_serial_timers(root)


def _inference(args: argparse.Namespace, bundle: Bundle | None, arm: ArmProfile | None) -> Check:
    if bundle is None or arm is None:
        return Check.skipped("inference", "a sound --bundle DIR and --arm NAME")
    try:
        task = bundle.task(args.task)
    except VlaEdgeError:
        return Check.skipped("inference", "--task TEXT, an instruction that the policy follows,")
    return check_inference(bundle, arm, args.arm, task, args.threads)


def _device_checks(
    args: argparse.Namespace, arm: ArmProfile | None, bundle: Bundle | None, stack: ExitStack
) -> Iterator[Check]:
    """Bridge and cameras; a simulated bench behind both is started on request."""
    bridge, cameras = args.bridge, list(args.camera)
    if bridge is None:
        yield Check.skipped("bridge", "--bridge URL")
    elif arm is None:
        yield Check.skipped("bridge", "a sound --arm NAME")
    elif bridge.startswith("feetech:"):
        yield from check_servos(bridge, arm)
    else:
        try:
            if bridge == SIMULATED and any(split_name(text)[1].startswith(SIMULATED) for text in cameras):
                found, folder = _simulated(arm, stack)
                cameras = [_on_bench(text, folder) for text in cameras]
            else:
                found = open_bridge(bridge, arm)
            stack.callback(found.close)
        except (BridgeError, VlaEdgeError) as error:
            yield Check.failed("bridge", error)
        else:
            yield from check_device(found.transport, arm)
    if not cameras:
        yield Check.skipped("cameras", "--camera URL")
    yield from _cameras(cameras, bundle, arm)


def _on_bench(text: str, folder: Path) -> str:
    name, url = split_name(text)
    return on_bench(url, folder) if name is None else f"{name}={on_bench(url, folder)}"


def _cameras(urls: Sequence[str], bundle: Bundle | None, arm: ArmProfile | None) -> Iterator[Check]:
    """Each camera at the size of the policy's camera of that name; without a bundle at a usual one."""
    if bundle is None:
        for number, url in enumerate(urls, start=1):
            yield check_camera(split_name(url)[1], FRAME_PX, split_name(url)[0] or str(number))
        return
    specs = bundle.manifest.cameras
    try:
        placed = assigned(urls, [spec.name for spec in specs]) if urls else ()
    except VlaEdgeError as error:
        yield Check.failed("cameras", error)
        return
    steps_s = [one.step_s for one in bundle.manifest.arms if arm is not None and one.name == arm.embodiment]
    for spec, url in zip(specs, placed):
        check = check_camera(url, spec.frame_px, spec.name, spec.fit == "exact")
        yield against_rate(check, steps_s[0]) if steps_s else check


def _simulated(arm: ArmProfile, stack: ExitStack) -> tuple[Bridge, Path]:
    """The simulated device with a scene for a camera to look at, and the scene's folder."""
    folder = stack.enter_context(scratch_folder())
    try:
        from edge.sim.bench import SimulatedBench
    except ImportError as error:
        raise InputError(missing("the simulated camera", error)) from None
    return behind(SimulatedBench(arm, 0, folder, None).process), folder


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
