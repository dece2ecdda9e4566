"""Reads a bundle and checks it by hash before anything of it is opened."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bundle.external import OnnxDamaged, external_files
from edge.bundle.files import replacing
from edge.bundle.manifest import BUNDLE_FORMAT, MANIFEST, VERIFICATION, ArmSpec, Manifest
from edge.bundle.signature import SIGNATURE, Unsigned, check_signature
from edge.bundle.wiring import check_wiring
from edge.errors import InputError
from firmware_bridge.reading import Reader, one_line, shown

READ_SIZE = 1 << 20
MOST_TOKENIZER_BYTES = 64 << 20
AGAIN = "export the checkpoint again"


class BundleError(InputError):
    """A bundle that must not drive an arm; the message names the file and the fix."""


READER = Reader(BundleError, AGAIN)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest has been read and whose files have the hashes it names."""

    path: Path
    manifest: Manifest
    manifest_sha256: str = ""
    """Of the manifest as it was read: it stands for all other files. Empty for a bundle that is in no folder."""

    def file(self, name: str) -> Path:
        return self.path / name

    def task(self, given: str | None) -> str:
        """The task given, or the bundle's own; empty for a policy that follows none.

        Raises `BundleError` where neither says what to do: no arm guesses.
        """
        own = self.manifest.text.task if self.manifest.text is not None else ""
        if given is None and not own and self.manifest.follows_text:
            raise BundleError("this policy follows an instruction; give one with --task TEXT")
        return own if given is None else given

    def arm(self, embodiment: str, joints: tuple[str, ...]) -> ArmSpec:
        """What the policy was trained with of an arm. Raises `BundleError` when it does not suit."""
        for spec in self.manifest.arms:
            if spec.name == embodiment:
                self._check_joints(spec, joints)
                return spec
        known = ", ".join(spec.name for spec in self.manifest.arms) or "no arm"
        raise BundleError(
            f"{self.path}: this policy was trained for {known}, not for '{embodiment}'; choose another arm or bundle"
        )

    def _check_joints(self, spec: ArmSpec, joints: tuple[str, ...]) -> None:
        if len(spec.axes) != len(joints):
            raise BundleError(
                f"{self.path}: this policy controls {len(spec.axes)} axes, the arm has {len(joints)}; "
                "choose another arm or bundle"
            )
        for number, (mine, its) in enumerate(zip(_without_prefix(spec.joints), _without_prefix(joints))):
            if mine != its:
                raise BundleError(
                    f"{self.path}: joint {number + 1} of this policy is '{spec.joints[number]}', of the arm "
                    f"'{joints[number]}'; choose another arm or bundle"
                )


def _without_prefix(names: tuple[str, ...]) -> list[str]:
    """Names without what all of them begin with: those of an FR3 and of a Panda differ in that alone."""
    prefix = 0
    while len({name[: prefix + 1] for name in names}) == 1 < len(names) and prefix < len(names[0]):
        prefix += 1
    return [name[prefix:] for name in names]


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def load_bundle(folder: str | Path, *, trust: str | Path | None = None, manifest_sha256: str = "") -> Bundle:
    """Reads and checks a bundle: before anything else its signature, where `trust` names a public key.

    With a hash of the manifest, the bundle has to be the one that was read before. Raises `BundleError`, and
    `KeyRefused` for a key that is none.
    """
    path = Path(folder)
    file = path / MANIFEST
    if not file.is_file():
        hint = (
            "that is a checkpoint, export it first: edge-export"
            if path.is_file()
            else "make one with edge-export CHECKPOINT -o BUNDLE"
        )
        raise BundleError(f"{one_line(str(path), 160)}: no {MANIFEST} there; {hint}")
    if trust is not None:
        _check_trust(path, Path(trust))
    found = sha256(file)
    if manifest_sha256 not in ("", found):
        raise BundleError(f"{one_line(str(path), 160)}: was changed while the run was starting; start it again")
    bundle = Bundle(path, read_manifest(file), found)
    _check_files(bundle)
    _check_verification(bundle)
    return bundle


def _check_trust(path: Path, key: Path) -> None:
    try:
        check_signature(path, key)
    except Unsigned as error:
        fix = "take it from who holds the key again, or have it signed: edge-export --sign"
        raise BundleError(f"{one_line(str(path), 60)}: {error}; {fix}") from None


def read_manifest(file: Path) -> Manifest:
    """A manifest whose graph is whole; opens no other file. Raises `BundleError`."""
    document = READER.json(file)
    found = document.get("format") if isinstance(document, dict) else None
    if type(found) is not int or found != BUNDLE_FORMAT:
        older = type(found) is int and 0 < found < BUNDLE_FORMAT
        fix = f"made by an older edge-export: {AGAIN} with this version" if older else AGAIN
        raise BundleError(
            f"{one_line(str(file), 100)}: format {shown(found)}, this version reads {BUNDLE_FORMAT}; {fix}"
        )
    manifest = READER.into(Manifest, document, file)
    try:
        check_wiring(manifest)
    except ValueError as error:
        raise READER.refuse(file, str(error)) from None
    return manifest


def add_to_verification(bundle: Bundle, name: str, found: dict[str, Any]) -> None:
    """Writes what was found out about a sound bundle later on into its verification, as the entry `name`.

    A signature no longer holds, and goes.
    The manifest is written last: stopped in between, the bundle is refused and has to be exported again.
    """
    bundle.file(SIGNATURE).unlink(missing_ok=True)
    report = json.loads(bundle.file(VERIFICATION).read_text(encoding="utf-8"))
    _replace(bundle.file(VERIFICATION), json.dumps({**report, name: found}, indent=2) + "\n")
    document = json.loads(bundle.file(MANIFEST).read_text(encoding="utf-8"))
    document["files"][VERIFICATION] = sha256(bundle.file(VERIFICATION))
    _replace(bundle.file(MANIFEST), json.dumps(document, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _check_files(bundle: Bundle) -> None:
    manifest = bundle.manifest
    for name, expected in manifest.files.items():
        file = bundle.file(name)
        if Path(name).name != name or name in ("..", MANIFEST):
            raise READER.refuse(bundle.path, f"the manifest names a file outside the bundle: {shown(name)}")
        if file.is_symlink() or not file.is_file():
            raise READER.refuse(file, "missing; copy the whole bundle, or")
        if sha256(file) != expected:
            raise BundleError(
                f"{one_line(str(file), 120)}: its content is not what the manifest says (SHA-256 differs); "
                "copy or export it again"
            )
    for spec in manifest.engines.values():
        for name in spec.files:
            _check_listed(bundle, name)
        _check_weights(bundle, spec.file, set(spec.weights))
    if manifest.text is not None:
        _check_listed(bundle, manifest.text.tokenizer)
        if bundle.file(manifest.text.tokenizer).stat().st_size > MOST_TOKENIZER_BYTES:
            raise READER.refuse(bundle.file(manifest.text.tokenizer), "is larger than any tokenizer")


def _check_listed(bundle: Bundle, name: str) -> None:
    if name not in bundle.manifest.files:
        raise READER.refuse(bundle.path, f"the manifest does not list {shown(name)} among its files")


def _check_weights(bundle: Bundle, name: str, listed: set[str]) -> None:
    """What an engine's own file says that it opens must be what the manifest says."""
    if not name.endswith(".onnx"):
        return
    try:
        opened = external_files(bundle.file(name))
    except OnnxDamaged as error:
        raise READER.refuse(bundle.file(name), str(error)) from None
    if opened - listed:
        found = shown(sorted(opened - listed)[0])
        raise READER.refuse(bundle.file(name), f"opens {found}, which the manifest does not list as its weights")


def _check_verification(bundle: Bundle) -> None:
    if VERIFICATION not in bundle.manifest.files:
        raise BundleError(f"{one_line(str(bundle.path), 120)}: never verified; {AGAIN}")
    report = READER.json(bundle.file(VERIFICATION))
    if not isinstance(report, dict) or report.get("passed") is not True:
        raise BundleError(
            f"{one_line(str(bundle.path), 100)}: its engines did not match the policy (see {VERIFICATION}); "
            "they must not drive an arm"
        )
