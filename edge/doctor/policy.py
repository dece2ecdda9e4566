"""The bundle, the arm, and whether the one computes chunks for the other here."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edge.arms import ArmProfile, load_arm
from edge.arms.stopping import stop_bounds
from edge.bundle import Bundle, load_bundle
from edge.doctor.check import Check, Status
from edge.errors import VlaEdgeError
from edge.plan.shaping import GoalShaper
from edge.policy.axes import Axes
from edge.policy.base import BundlePolicy, PolicyInput, open_policy

WARM_CALLS = 5


def check_arm(name: str) -> tuple[Check, ArmProfile | None]:
    """The profile, and the profile itself where it loads."""
    try:
        arm = load_arm(name)
    except VlaEdgeError as error:
        return Check.failed("arm", error), None
    found = f"{arm.name}: {arm.model}, {arm.dof} joints, limits {arm.hash32:08x}"
    return Check("arm", Status.OK, found, "", {"joints": arm.dof, "hash32": f"{arm.hash32:08x}"}), arm


def check_stops(arm: ArmProfile) -> Check:
    """The longest and farthest stop of every joint, whatever limits a session sets: from the profile, not measured."""
    bounds = stop_bounds(arm)
    each = ", ".join(
        f"{name} {1000 * bound.time_s:.0f} ms {bound.distance:.3f} {unit}"
        for name, bound, unit in zip(arm.joints, bounds, arm.units)
    )
    figures = {
        name: {"milliseconds": round(1000 * bound.time_s, 1), unit: round(bound.distance, 4)}
        for name, bound, unit in zip(arm.joints, bounds, arm.units)
    }
    longest_ms = 1000 * max(bound.time_s for bound in bounds)
    return Check("stop", Status.OK, f"at most {longest_ms:.0f} ms from any motion: {each}", "", figures)


def bundle_bytes(bundle: Bundle) -> int:
    """Size of all files that the manifest lists."""
    return sum(bundle.file(name).stat().st_size for name in bundle.manifest.files)


def check_bundle(path: Path, trust: Path | None = None) -> tuple[Check, Bundle | None]:
    """Signature, manifest, hashes and verification, and the bundle where they are sound."""
    try:
        bundle = load_bundle(path, trust=trust)
    except VlaEdgeError as error:
        return Check.failed("bundle", error), None
    size = bundle_bytes(bundle)
    manifest = bundle.manifest
    signed = "no key to check a signature with" if trust is None else f"signed by the owner of {trust.name}"
    found = f"{len(manifest.files)} files, {size / 1e6:.1f} MB, hashes as listed, verified, {manifest.precision}"
    figures = {"bytes": size, "precision": manifest.precision, "signed": trust is not None}
    return Check("bundle", Status.OK, f"{found}; {signed}", "", figures), bundle


def check_fit(bundle: Bundle, arm: ArmProfile) -> Check:
    """Whether the policy suits the arm: joints, units, rate; and which cameras it wants."""
    manifest = bundle.manifest
    try:
        spec = bundle.arm(arm.embodiment, arm.joints)
        Axes(spec, arm)
        if not manifest.continues:
            GoalShaper(arm)
    except VlaEdgeError as error:
        return Check.failed("policy", error)
    policy, shape = manifest.policy, manifest.shape
    kinds = sorted({axis.action.kind.replace("_", " ") for axis in spec.axes})
    units = sorted({own if axis.action.unit == "arm" else axis.action.unit for axis, own in zip(spec.axes, arm.units)})
    cameras = ", ".join(f"{one.name} {one.width}x{one.height} ({one.fit})" for one in manifest.cameras) or "none"
    covered_s = shape.horizon * spec.step_s
    found = (
        f"{policy.family} for {spec.name}: {' and '.join(kinds)} in {' and '.join(units)}; {shape.horizon} steps of "
        f"{1000 * spec.step_s:.1f} ms, {covered_s:.2f} s, {policy.execute} executed; cameras: {cameras}"
    )
    figures = {"horizon": shape.horizon, "step_ms": 1000 * spec.step_s, "execute": policy.execute}
    return Check("policy", Status.OK, found, "", figures)


def check_inference(bundle: Bundle, arm: ArmProfile, arm_name: str, task: str, threads: int) -> Check:
    """Opens the engines and computes the same chunk twice: it must be finite, and the same. `arm_name` as given."""
    try:
        policy = open_policy(bundle, arm_name, task, threads)
        observed = _observation(policy, arm)
        began = time.perf_counter()
        first = policy.infer(observed).rows_rad
        cold_ms = 1000 * (time.perf_counter() - began)
        warm_ms = []
        for _ in range(WARM_CALLS):
            began = time.perf_counter()
            again = policy.infer(observed).rows_rad
            warm_ms.append(1000 * (time.perf_counter() - began))
    except (VlaEdgeError, ValueError, RuntimeError) as error:
        return Check.failed("inference", error)
    figures = {"cold_ms": round(cold_ms, 2), "warm_ms": [round(value, 2) for value in warm_ms]}
    if not np.isfinite(first).all():
        return Check(
            "inference", Status.FAIL, "a chunk is not finite", "check the checkpoint, export it again", figures
        )
    if not np.array_equal(first, again):
        fix = "use another engine; this one does not compute the same chunk twice"
        return Check("inference", Status.FAIL, "two chunks from one observation differ", fix, figures)
    covered_ms = 1000 * policy.shape.horizon * policy.arm.step_s
    if max(warm_ms) > covered_ms:
        found = f"a chunk takes {max(warm_ms):.0f} ms and covers {covered_ms:.0f} ms of motion: too slow to keep up"
        fix = "use a faster engine or computer, another --precision or fewer flow steps in edge-export"
        return Check("inference", Status.FAIL, found, fix, figures)
    runs = ", ".join(sorted(set(policy.describe())))
    found = f"{runs}: finite and repeatable, first {cold_ms:.0f} ms, then {max(warm_ms):.1f} ms at most"
    return Check("inference", Status.OK, found, "", figures)


def _observation(policy: BundlePolicy, arm: ArmProfile) -> PolicyInput:
    """The arm at rest at home, behind a picture of noise."""
    shape, draw, home = policy.shape, np.random.default_rng(0), np.array(arm.home_rad)
    several = (policy.observations,) if policy.observations > 1 else ()
    sizes = [(*several, *camera.frame_px, 3) for camera in policy.cameras]
    return PolicyInput(
        frames=[draw.integers(0, 256, size, dtype=np.uint8) for size in sizes],
        states_rad=np.tile(home, (shape.history, 1)),
        actions_rad=np.zeros((shape.history, arm.dof)),
        mask=np.ones(shape.history, dtype=np.bool_),
        prefix_rad=np.zeros((0, arm.dof)),
        seed=(0, 0),
        measured_rad=np.tile(home, (policy.observations, 1)),
        commanded_rad=home[None],
    )
