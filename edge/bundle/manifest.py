"""The bundle: engines, tokenizer and manifest in one folder, checked by hash before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.bundle.files import replacing
from edge.errors import InputError

BUNDLE_FORMAT = 1
ACTION_PRIOR = "action_prior"
"""The policy family of a bundle whose manifest names none."""
MANIFEST, VERIFICATION, TOKENIZER = "manifest.json", "verification.json", "tokenizer.json"
REFERENCE = "reference.npz"
"""A few observations with FP32 torch's answers, for whoever builds engines from the bundle."""
ENGINES = ("backbone", "history_encoder", "action_decoder")
READ_SIZE = 1 << 20


class BundleError(InputError):
    """A bundle that must not drive an arm; the message names the file and the fix."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine: numpy name of its type, and its static shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EngineSpec:
    """One engine: its ONNX file and what goes in and out."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class PolicyShape:
    """The sizes the runtime needs of the policy."""

    horizon: int
    history: int
    action_slots: int
    state_slots: int
    latent: int
    cameras: int
    frame_px: tuple[int, int]
    token_budget: int
    flow_steps: int
    noise_scale: float
    max_delay: int


@dataclass(frozen=True)
class SlotScaling:
    """`normalised = (value - offset) / scale`, placed at `slots`."""

    slots: tuple[int, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]


@dataclass(frozen=True)
class EmbodimentSpec:
    """How one arm maps to the policy. An action is the increment of the commanded joint positions over one step."""

    name: str
    index: int
    step_s: float
    joints: tuple[str, ...]
    actions: SlotScaling
    states: SlotScaling


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime knows about a bundle. `files` maps every file to its SHA-256."""

    policy: PolicyShape
    embodiments: tuple[EmbodimentSpec, ...]
    engines: dict[str, EngineSpec]
    precision: str
    checkpoint_sha256: str
    created_by: str
    files: dict[str, str]
    format: int = BUNDLE_FORMAT
    family: str = ACTION_PRIOR

    def to_json(self) -> str:
        document = asdict(self)
        if self.family == ACTION_PRIOR:
            del document["family"]
        return json.dumps(document, indent=2) + "\n"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest has been read and whose files have the hashes it names."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        return self.path / name

    def embodiment(self, name: str, axes: int | None = None) -> EmbodimentSpec:
        """The embodiment of an arm with so many axes. Raises `BundleError` when the policy was not trained for it."""
        for spec in self.manifest.embodiments:
            if spec.name != name:
                continue
            if axes is not None and len(spec.joints) != axes:
                raise BundleError(
                    f"{self.path}: this policy controls {len(spec.joints)} axes, the arm has {axes}; "
                    "choose another arm or bundle"
                )
            return spec
        known = ", ".join(spec.name for spec in self.manifest.embodiments)
        raise BundleError(
            f"{self.path}: this policy was trained for {known}, not for '{name}'; choose another arm or bundle"
        )


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def load_bundle(folder: str | Path) -> Bundle:
    """Reads and checks a bundle. Raises `BundleError`."""
    path = Path(folder)
    manifest_file = path / MANIFEST
    if not manifest_file.is_file():
        hint = (
            "that is a checkpoint, export it first: edge-export"
            if path.is_file()
            else "make one with edge-export CHECKPOINT -o BUNDLE"
        )
        raise BundleError(f"{path}: no {MANIFEST} there; {hint}")
    try:
        document = json.loads(manifest_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{manifest_file}: cannot be read ({error}); export the checkpoint again") from None
    if not isinstance(document, dict) or document.get("format") != BUNDLE_FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise BundleError(
            f"{manifest_file}: format {found!r}, this version reads {BUNDLE_FORMAT}; export the checkpoint again"
        )
    try:
        manifest = parse_manifest(document)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{manifest_file}: incomplete ({error!r}); export the checkpoint again") from None
    bundle = Bundle(path, manifest)
    _check_files(bundle)
    _check_verification(bundle)
    return bundle


def add_to_verification(bundle: Bundle, name: str, found: dict[str, Any]) -> None:
    """Writes what was found out about a sound bundle later on into its verification, as the entry `name`.

    The manifest is written last: stopped in between, the bundle is refused and has to be exported again.
    """
    report = json.loads(bundle.file(VERIFICATION).read_text(encoding="utf-8"))
    _replace(bundle.file(VERIFICATION), json.dumps({**report, name: found}, indent=2) + "\n")
    document = json.loads(bundle.file(MANIFEST).read_text(encoding="utf-8"))
    document["files"][VERIFICATION] = sha256(bundle.file(VERIFICATION))
    _replace(bundle.file(MANIFEST), json.dumps(document, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _check_files(bundle: Bundle) -> None:
    for name, expected in bundle.manifest.files.items():
        file = bundle.file(name)
        if Path(name).name != name:
            raise BundleError(f"{bundle.path}: the manifest names a file outside the bundle: {name}")
        if not file.is_file():
            raise BundleError(f"{file}: missing; copy the whole bundle, or export the checkpoint again")
        if sha256(file) != expected:
            raise BundleError(
                f"{file}: its content is not what the manifest says (SHA-256 differs); copy or export it again"
            )
    unlisted = [spec.file for spec in bundle.manifest.engines.values() if spec.file not in bundle.manifest.files]
    if unlisted or (bundle.manifest.family == ACTION_PRIOR and set(bundle.manifest.engines) != set(ENGINES)):
        raise BundleError(f"{bundle.path}: the manifest does not list all three engines; export the checkpoint again")


def _check_verification(bundle: Bundle) -> None:
    if VERIFICATION not in bundle.manifest.files:
        raise BundleError(f"{bundle.path}: never verified; export the checkpoint again")
    report = json.loads(bundle.file(VERIFICATION).read_text(encoding="utf-8"))
    if report.get("passed") is not True:
        raise BundleError(
            f"{bundle.path}: its engines did not match the policy (see {VERIFICATION}); they must not drive an arm"
        )


def parse_manifest(document: dict[str, Any]) -> Manifest:
    policy = dict(document["policy"])
    policy["frame_px"] = tuple(policy["frame_px"])
    return Manifest(
        policy=PolicyShape(**policy),
        embodiments=tuple(_embodiment(entry) for entry in document["embodiments"]),
        engines={name: _engine(entry) for name, entry in document["engines"].items()},
        precision=str(document["precision"]),
        checkpoint_sha256=str(document["checkpoint_sha256"]),
        created_by=str(document["created_by"]),
        files={str(name): str(digest) for name, digest in document["files"].items()},
        family=str(document.get("family", ACTION_PRIOR)),
    )


def _embodiment(entry: dict[str, Any]) -> EmbodimentSpec:
    return EmbodimentSpec(
        name=str(entry["name"]),
        index=int(entry["index"]),
        step_s=float(entry["step_s"]),
        joints=tuple(entry["joints"]),
        actions=_scaling(entry["actions"]),
        states=_scaling(entry["states"]),
    )


def _scaling(entry: dict[str, Any]) -> SlotScaling:
    return SlotScaling(
        tuple(map(int, entry["slots"])), tuple(map(float, entry["offset"])), tuple(map(float, entry["scale"]))
    )


def _engine(entry: dict[str, Any]) -> EngineSpec:
    def specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in rows)

    return EngineSpec(str(entry["file"]), specs(entry["inputs"]), specs(entry["outputs"]))
