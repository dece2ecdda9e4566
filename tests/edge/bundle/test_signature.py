"""Who made a bundle: signed by the trusted key as it is, or not used at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edge.bundle import MANIFEST, VERIFICATION, BundleError, add_to_verification, load_bundle, sha256
from edge.bundle.signature import SIGNATURE, KeyRefused, SigningKey
from edge.cli import doctor, run, serve
from export.commands import export
from firmware_bridge.reading import MOST_LINE
from tests.conftest import SHIPPED
from tests.foreign_bundle import write_foreign

PEM, PUBLIC = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
PRIVATE, OPEN = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


def write_pair(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[Path, Path]:
    """Files of the private and the public key."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(PEM, PRIVATE, OPEN))
    public.write_bytes(key.public_key().public_bytes(PEM, PUBLIC))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ours` and `theirs` sign; `rsa`, `short`, `locked.pem` and `junk` are keys that do not suit."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        write_pair(folder, name, ec.generate_private_key(ec.SECP256R1()))
    write_pair(folder, "rsa", rsa.generate_private_key(65537, 2048))
    write_pair(folder, "short", ec.generate_private_key(ec.SECP192R1()))
    locked = ec.generate_private_key(ec.SECP384R1())
    (folder / "locked.pem").write_bytes(
        locked.private_bytes(PEM, PRIVATE, serialization.BestAvailableEncryption(b"secret"))
    )
    (folder / "junk").write_bytes(b"\x1b[31m no key \xff\n" * 20)
    return folder


@pytest.fixture(scope="module")
def made(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = write_foreign(tmp_path_factory.mktemp("made") / "bundle")
    SigningKey(keys / "ours.pem").sign(bundle)
    return bundle


@pytest.fixture
def signed(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def relist(bundle: Path) -> None:
    """What a forger does: the manifest's hashes are those of the files as they are now."""
    document = json.loads((bundle / MANIFEST).read_text())
    document["files"] = {name: sha256(bundle / name) for name in document["files"]}
    (bundle / MANIFEST).write_text(json.dumps(document))


def forge_verification(bundle: Path) -> None:
    (bundle / VERIFICATION).write_text('{"passed": true}')
    relist(bundle)


def forge_engine(bundle: Path) -> None:
    engine = sorted(bundle.glob("*.onnx"))[0]
    engine.write_bytes(sorted(bundle.glob("*.onnx"))[-1].read_bytes() + b"")
    (bundle / "reference.npz").write_bytes(b"other")
    relist(bundle)


def in_signature(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def applied(bundle: Path) -> None:
        document = json.loads((bundle / SIGNATURE).read_text())
        change(document)
        (bundle / SIGNATURE).write_text(json.dumps(document))

    return applied


def put(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda bundle: (bundle / name).write_bytes(data)


def link(bundle: Path) -> None:
    (bundle / "more").symlink_to("/etc")


def without(*names: str) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        for name in names[:-1]:
            document = document[name]
        del document[names[-1]]

    return change


def another_payload(document: dict) -> None:
    document["dsseEnvelope"]["payload"] = document["dsseEnvelope"]["payload"][::-1]


def no_hint(document: dict) -> None:
    """Which key it was is not said; the payload is another one."""
    document["verificationMaterial"]["publicKey"].pop("hint")
    document["dsseEnvelope"]["payload"] = "e30="


FORGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "the verification, with its hash": (forge_verification, "is not what was signed"),
    "an engine, with its hash": (forge_engine, "is not what was signed"),
    "the manifest alone": (put(MANIFEST, b"{}"), f"is not what was signed: Hash mismatch for '{MANIFEST}'"),
    "a file more": (put("onnxruntime.py", b"import os"), "Extra files found in model 'bundle': onnxruntime.py"),
    "a file more that git would ignore": (put(".gitignore", b"*"), "Extra files found in model 'bundle': .gitignore"),
    "a file less": (lambda bundle: (bundle / VERIFICATION).unlink(), "Missing files"),
    "a link": (link, "holds a symbolic link"),
    "no signature": (lambda bundle: (bundle / SIGNATURE).unlink(), f"is not signed: no {SIGNATURE} there"),
    "a folder for a signature": (
        lambda bundle: ((bundle / SIGNATURE).unlink(), (bundle / SIGNATURE).mkdir()),
        f"{SIGNATURE} is not a regular file",
    ),
    "an empty signature": (put(SIGNATURE, b""), f"{SIGNATURE} is no signature by ours.pub"),
    "a signature cut short": (
        lambda bundle: put(SIGNATURE, (bundle / SIGNATURE).read_bytes()[:-40])(bundle),
        "is no signature by",
    ),
    "a signature of many brackets": (put(SIGNATURE, b"[" * 100_000), "is no signature by"),
    "a signature without end": (put(SIGNATURE, b" " * (5 << 20)), "is larger than"),
    "a signature that is a list": (put(SIGNATURE, b"[]"), "is no signature by"),
    "escape codes for a signature": (put(SIGNATURE, b"\x1b[2J\xff"), "is no signature by"),
    "another payload": (in_signature(another_payload), "is no signature by"),
    "another payload, and no word of the key": (in_signature(no_hint), "is no signature by"),
    "no key's name": (in_signature(without("verificationMaterial")), "is no signature by"),
    "no signatures in it": (in_signature(without("dsseEnvelope", "signatures")), "is no signature by"),
}


def refusal(bundle: Path, key: Path) -> str:
    with pytest.raises(BundleError) as refused:
        load_bundle(bundle, trust=key)
    text = str(refused.value)
    assert len(text) + len("edge-doctor: ") <= MOST_LINE and text.isprintable(), text
    return text


def test_what_the_trusted_key_signed_is_loaded(made: Path, keys: Path) -> None:
    assert load_bundle(made, trust=keys / "ours.pub").manifest == load_bundle(made).manifest


@pytest.mark.parametrize("how", ["the verification, with its hash", "an engine, with its hash", "a file more"])
def test_no_hash_shows_who_made_a_bundle(how: str, signed: Path) -> None:
    alter, _ = FORGED[how]
    alter(signed)
    load_bundle(signed)


@pytest.mark.parametrize("how", FORGED)
def test_what_was_altered_is_refused(how: str, signed: Path, keys: Path) -> None:
    alter, message = FORGED[how]
    alter(signed)
    assert message in refusal(signed, keys / "ours.pub")


def test_a_bundle_signed_by_another_key_is_refused(signed: Path, keys: Path) -> None:
    assert "is signed by another key than theirs.pub" in refusal(signed, keys / "theirs.pub")
    forge_verification(signed)
    SigningKey(keys / "theirs.pem").sign(signed)
    load_bundle(signed, trust=keys / "theirs.pub")
    assert "is signed by another key than ours.pub" in refusal(signed, keys / "ours.pub")


def test_a_signature_of_another_bundle_is_none_of_this_one(signed: Path, keys: Path, tmp_path: Path) -> None:
    other = write_foreign(tmp_path / "other", noise=0.5)
    shutil.copy(SigningKey(keys / "ours.pem").sign(other), signed / SIGNATURE)
    assert "is not what was signed" in refusal(signed, keys / "ours.pub")


def test_what_is_found_out_later_needs_another_signature(signed: Path, keys: Path) -> None:
    add_to_verification(load_bundle(signed), "closed_loop", {"succeeded": 1})
    assert "is not signed" in refusal(signed, keys / "ours.pub")
    SigningKey(keys / "ours.pem").sign(signed)
    load_bundle(signed, trust=keys / "ours.pub")


def test_a_bundle_changed_while_a_run_starts_is_not_opened(signed: Path, keys: Path) -> None:
    checked = load_bundle(signed, trust=keys / "ours.pub")
    forge_verification(signed)
    with pytest.raises(BundleError, match="was changed while the run was starting"):
        load_bundle(signed, manifest_sha256=checked.manifest_sha256)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ours.pem", "holds no public key"),
        ("rsa.pub", "holds no public key"),
        ("short.pub", "holds no public key"),
        ("junk", "holds no public key"),
        ("none", "there is no such file"),
        (".", "is not a regular file"),
    ],
)
def test_what_is_no_public_key_is_refused(name: str, message: str, made: Path, keys: Path) -> None:
    with pytest.raises(KeyRefused, match=message) as refused:
        load_bundle(made, trust=keys / name)
    assert str(refused.value).startswith("--trust ") and str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ours.pub", "holds no private key"),
        ("rsa.pem", "holds no private key"),
        ("junk", "holds no private key"),
        ("locked.pem", "has a password"),
        ("none", "there is no such file"),
    ],
)
def test_an_export_that_could_not_sign_makes_nothing(
    name: str, message: str, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert export.main([str(SHIPPED), "-o", str(out), "--sign", str(keys / name)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("edge-export: --sign ") and message in told and told.count("\n") == 1
    assert not out.exists()


def test_the_librarys_own_command_makes_and_checks_the_same(signed: Path, keys: Path) -> None:
    from model_signing import hashing, signing, verifying

    verifying.Config().use_elliptic_key_verifier(public_key=keys / "ours.pub").verify(signed, signed / SIGNATURE)
    ignored = hashing.Config().set_ignored_paths(paths=[SIGNATURE])
    signing.Config().use_elliptic_key_signer(private_key=keys / "theirs.pem").set_hashing_config(ignored).sign(
        signed, signed / SIGNATURE
    )
    load_bundle(signed, trust=keys / "theirs.pub")


@pytest.mark.parametrize("which", ["theirs.pub", "ours.pub"])
def test_no_command_opens_what_it_cannot_trust(
    which: str, signed: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By another key, or unsigned: nothing is opened, so nothing is armed, and nothing is written."""
    if which == "ours.pub":
        (signed / SIGNATURE).unlink()
    with_trust = ["--bundle", str(signed), "--arm", "so101", "--trust", str(keys / which)]
    trace, report = tmp_path / "trace.csv", tmp_path / "run.json"
    commands = {
        "edge-run": (run.main, ["--bridge", "sim:", "--trace", str(trace), "--report", str(report)]),
        "edge-serve": (serve.main, ["--port", "0"]),
    }
    for name, (main, more) in commands.items():
        assert main([*with_trust, *more]) == 2, name
        told = capsys.readouterr()
        why = "is not signed" if which == "ours.pub" else "is signed by another key"  # a long path is cut short
        assert told.out == "" and told.err.startswith(f"{name}: ") and why in told.err and told.err.count("\n") == 1
    assert doctor.main(with_trust) == 1
    checked = next(line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines() if " bundle " in line)
    assert checked[0] == "FAIL" and "signed" in checked[2]
    assert not trace.exists() and not report.exists()


def test_the_doctor_says_what_was_signed(made: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main(["--bundle", str(made), "--trust", str(keys / "ours.pub")])
    assert "signed by the owner of ours.pub" in capsys.readouterr().out
    doctor.main(["--bundle", str(made)])
    assert "no key to check a signature with" in capsys.readouterr().out


def test_trust_needs_a_bundle(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--trust", str(keys / "ours.pub")]) == 2
    assert "add --bundle DIR" in capsys.readouterr().err
    arguments = ["--arm", "franka", "--policy", "openpi://127.0.0.1:9", "--trust", str(keys / "ours.pub")]
    assert run.main(arguments) == 2
    assert "--trust is for a --bundle" in capsys.readouterr().err
