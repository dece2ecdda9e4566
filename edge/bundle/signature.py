"""Who made a bundle: a signature over its whole folder, made and checked with a pair of keys by `model-signing`.

The format is that of the library's own command (a Sigstore bundle, https://github.com/sigstore/model-transparency), so
that either makes and checks what the other does. Keys are PEM files of the curves P-256, P-384 or P-521. Nothing asks
a server.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from edge.bundle.files import replacing
from edge.errors import InputError
from edge.registry import missing
from firmware_bridge.reading import ReadError, one_line, read_bytes

SIGNATURE = "model.sig"
MOST_KEY_BYTES = 64 << 10
MOST_TEXT = 130
CURVES = "PEM, of the curve P-256, P-384 or P-521"


class KeyRefused(InputError):
    """A key that is none, or nothing to use it with; one line that names the fix."""


class Unsigned(Exception):
    """A folder that is not what the owner of the key has signed; the message does not name it."""


class SigningKey:
    """A private key. Raises `KeyRefused` for a file that holds none, before anything is made that it should sign."""

    def __init__(self, key: Path) -> None:
        _key_of(key, "--sign")
        try:
            from model_signing import signing
        except ImportError as error:
            raise KeyRefused(missing("--sign", error)) from None
        try:
            self._config = signing.Config().use_elliptic_key_signer(private_key=key)
        except Exception as error:  # of three libraries; what stands in a key is no text for a terminal
            raise _no_key("--sign", key, "private", error) from None
        self._config.set_hashing_config(_everything())

    def sign(self, folder: Path) -> Path:
        """Signs every file of a folder as it is now; returns the signature's place in it. Raises `OSError`."""
        path = folder / SIGNATURE
        path.unlink(missing_ok=True)
        with replacing(path) as partial:
            self._config.sign(folder, partial)
        return path


def check_signature(folder: Path, key: Path) -> None:
    """Whether a folder is, file by file, what the owner of a public key has signed.

    Raises `Unsigned`, and `KeyRefused` for a key that is none.
    """
    _key_of(key, "--trust")
    try:
        from model_signing import verifying
    except ImportError as error:
        raise KeyRefused(missing("--trust", error)) from None
    config = verifying.Config().set_hashing_config(_everything())
    try:
        config.use_elliptic_key_verifier(public_key=key)
    except Exception as error:
        raise _no_key("--trust", key, "public", error) from None
    try:
        read_bytes(folder / SIGNATURE)
    except ReadError as error:
        there = (folder / SIGNATURE).exists()
        raise Unsigned(f"{SIGNATURE} {error}" if there else f"is not signed: no {SIGNATURE} there") from None
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the library warns there
            config.verify(folder, folder / SIGNATURE)
    except Exception as error:  # of five libraries, for whatever can be wrong with a signature
        raise Unsigned(_why(error, key)) from None


def _everything() -> Any:
    """Every file but the signature, links not followed."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _key_of(key: Path, option: str) -> None:
    try:
        read_bytes(key, MOST_KEY_BYTES)
    except ReadError as error:
        raise KeyRefused(f"{option} {one_line(str(key), 100)}: {error}; name a key's file") from None


def _no_key(option: str, key: Path, kind: str, error: Exception) -> KeyRefused:
    locked = isinstance(error, TypeError)  # what cryptography raises for a key with a password
    problem = f"this {kind} key has a password; name one without" if locked else f"holds no {kind} key ({CURVES})"
    return KeyRefused(f"{option} {one_line(str(key), 100)}: {problem}")


def _why(error: Exception, key: Path) -> str:
    """In words what the library says."""
    text = str(error)
    if "Key mismatch" in text:
        return f"is signed by another key than {one_line(key.name, 60)}"
    if "Signature mismatch" in text:
        differs = text.partition("[")[2].rstrip("]").replace('"', "").partition(": Expected")[0]
        return f"is not what was signed: {one_line(differs, MOST_TEXT)}"
    if isinstance(error, (ValueError, OSError)) and "symlink" in text:
        return "holds a symbolic link, which no signature covers"
    return f"{SIGNATURE} is no signature by {one_line(key.name, 60)}, or was altered"
