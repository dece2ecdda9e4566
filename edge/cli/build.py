"""`edge-build BUNDLE`: TensorRT engines for the GPU here, or for others, or only the arithmetic."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from edge.bundle import VERIFICATION, Bundle, load_bundle
from edge.bundle.signature import SigningKey
from edge.cli.parser import TRUST, add_version, complain, described
from edge.engines import Engine, EngineError, OnnxRuntimeEngine
from edge.engines.gpu import Gpu, present_gpu
from edge.engines.memory_plan import TARGETS, EngineDemand, explain, memory_plan
from edge.engines.parity import check_engine
from edge.engines.tensorrt_builder import BuildSettings, build_engine, layer_types
from edge.engines.tensorrt_cache import FOLDER, EngineCache, EngineKey, EngineRecord, engine_key
from edge.engines.tensorrt_engine import CudaDevice, TensorRtEngine
from edge.engines.tensorrt_library import TensorRt, find_tensorrt
from edge.errors import InputError, VlaEdgeError

Say = Callable[[str], None]


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-build",
        **described(
            "Builds TensorRT engines from a bundle, and checks each one beside ONNX Runtime on this GPU.",
            """
            edge-build bundle                                    # for the GPU in this machine
            edge-build bundle --dry-run --target orin-nano       # what fits, with the arithmetic
            edge-build bundle --sm 86,89,120                     # without their GPUs, by TensorRT-RTX
            """,
            "Exit codes: 0 built (and checked where there is a GPU), 1 an engine does not match, 2 bad input.",
        ),
    )
    add_version(root)
    root.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder made by edge-export")
    root.add_argument("--dry-run", action="store_true", help="print what would be built, what it needs, and why not")
    root.add_argument("--target", choices=TARGETS, help="with --dry-run: the board to plan for")
    root.add_argument(
        "--sm",
        type=_capabilities,
        default=(),
        metavar="N,N",
        help="compute capabilities to build for without their GPU, such as 86,89,120 (TensorRT-RTX only)",
    )
    root.add_argument("--cache", type=Path, metavar="DIR", help="where engines go (default: BUNDLE/tensorrt)")
    root.add_argument("--trust", type=Path, metavar="KEY", help=TRUST)
    root.add_argument(
        "--sign", type=Path, metavar="KEY", help="private key to sign the bundle with, what was built in it included"
    )
    root.add_argument("--workspace-mb", type=int, default=512, metavar="N", help="for tactics (default %(default)d)")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        signing = SigningKey(args.sign) if args.sign is not None else None
        bundle = load_bundle(args.bundle, trust=args.trust)
        if args.target and not args.dry_run:
            raise InputError("--target plans for another machine; add --dry-run")
        if signing is not None and (args.dry_run or args.cache):
            raise InputError("--sign signs what is built in the bundle; leave out --dry-run and --cache")
        if args.dry_run:
            return _dry_run(bundle, args)
        code = _build(bundle, args)
        if signing is not None and code == 0:
            print(f"signed: {signing.sign(bundle.path)}")
        return code
    except VlaEdgeError as error:
        complain("edge-build", error)
        return error.exit_code
    except KeyboardInterrupt:
        print("edge-build: stopped; what was finished is kept", file=sys.stderr)
        return 130


def demands(bundle: Bundle) -> list[EngineDemand]:
    """What every engine needs, from its files and from what the export has measured of its activations.

    Raises `InputError` for a bundle whose export did not measure them yet.
    """
    manifest = bundle.manifest
    report = json.loads(bundle.file(VERIFICATION).read_text(encoding="utf-8"))
    if not {"activation_bytes", "read_bytes"} <= report.keys():
        raise InputError(
            f"{bundle.path}: made by an older edge-export, which did not count activations; export it again"
        )
    found = []
    for name, spec in manifest.engines.items():
        weights = sum(bundle.file(file).stat().st_size for file in spec.files)
        found.append(
            EngineDemand(name, weights, int(report["activation_bytes"][name]), int(report["read_bytes"][name]))
        )
    return sorted(found, key=lambda demand: -demand.weights)


def _dry_run(bundle: Bundle, args: argparse.Namespace) -> int:
    needed, workspace = demands(bundle), args.workspace_mb * 10**6
    for target in [TARGETS[args.target]] if args.target else TARGETS.values():
        for line in explain(memory_plan(target, needed, workspace), needed, workspace):
            print(line)
    try:
        library = find_tensorrt()
        sm = _capabilities_here(library, args.sm, present_gpu())
    except EngineError as error:
        print(f"nothing can be built here: {error}")
        return 0
    cache = EngineCache(args.cache or bundle.path / FOLDER)
    for demand in needed:
        key = engine_key(bundle, demand.name, library.name, library.version, sm)
        state = "is there already" if cache.find(key) else "would be built"
        print(f"{demand.name} {state}: {cache.plan(key)}")
    return 0


def _build(bundle: Bundle, args: argparse.Namespace) -> int:
    library, gpu = find_tensorrt(), present_gpu()
    sm = _capabilities_here(library, args.sm, gpu)
    cache = EngineCache(args.cache or bundle.path / FOLDER)
    passed = True
    for demand in demands(bundle):  # the largest first: if memory is short, it shows at once
        key = engine_key(bundle, demand.name, library.name, library.version, sm)
        record = cache.find(key)
        if record is None:
            record = _build_one(bundle, library, key, cache, args)
        print(f"{key.engine}: {record.plan_bytes / 1e6:.1f} MB for SM {', '.join(map(str, sm))}: {cache.plan(key)}")
        if gpu is None or gpu.sm not in sm:
            print(f"{key.engine}: not checked, there is no GPU of SM {', '.join(map(str, sm))} here")
            continue
        if record.checked is None:
            record = _check_one(bundle, library, record, cache)
        assert record.checked is not None
        passed = passed and bool(record.checked["passed"])
        print(f"{key.engine}: {'matches' if record.checked['passed'] else 'DOES NOT MATCH'}, layers {record.layers}")
        gc.collect()
    if not passed:
        print("edge-build: an engine does not match and will not drive an arm; its record says where", file=sys.stderr)
    return 0 if passed else 1


def _build_one(
    bundle: Bundle, library: TensorRt, key: EngineKey, cache: EngineCache, args: argparse.Namespace
) -> EngineRecord:
    print(f"{key.engine}: building with {library.name} {library.version} ...", flush=True)
    settings = BuildSettings(key.sm if args.sm else (), args.workspace_mb * 10**6, cache.timing)
    built = build_engine(library, bundle.file(bundle.manifest.engines[key.engine].file), settings)
    digest = hashlib.sha256(built.plan).hexdigest()
    record = EngineRecord(key, digest, len(built.plan), built.scratch_bytes, built.build_s, built.layers, None)
    cache.store(record, built.plan)
    return record


def _check_one(bundle: Bundle, library: TensorRt, record: EngineRecord, cache: EngineCache) -> EngineRecord:
    """Runs a built engine beside ONNX Runtime, reads its layers back, and notes both in its record."""
    name = record.key.engine
    spec = bundle.manifest.engines[name]
    device = CudaDevice()
    try:
        engine = TensorRtEngine(library, device, cache.plan(record.key).read_bytes(), spec)
        beside: Engine | None = None
        if bundle.manifest.precision != "bf16":
            beside = OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=0)
        checked = check_engine(bundle, name, engine, beside)
        scratch = library.device_memory_bytes(engine.opened)
        record = dataclasses.replace(
            record, checked=checked, layers=layer_types(library, engine.opened), scratch_bytes=scratch
        )
        engine.close()
    finally:
        device.close()
    cache.store(record)
    return record


def _capabilities_here(library: TensorRt, requested: tuple[int, ...], gpu: Gpu | None) -> tuple[int, ...]:
    if requested and not library.is_rtx and (gpu is None or requested != (gpu.sm,)):
        raise EngineError(f"{library.name} builds for the GPU it runs on only; leave out --sm, or use TensorRT-RTX")
    if requested:
        return requested
    if gpu is None:
        fix = "name what to build for: --sm 86,89,120" if library.is_rtx else "run edge-build on the robot"
        raise EngineError(f"there is no NVIDIA GPU here, or its driver is not loaded; {fix}")
    return (gpu.sm,)


def _capabilities(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of compute capabilities such as 86,89,120") from None


if __name__ == "__main__":
    sys.exit(main())
