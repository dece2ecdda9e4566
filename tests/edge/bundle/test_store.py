"""Bundles by version: one in use, the one before again, and no change where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.bundle import load_bundle
from edge.bundle.store import HISTORY, BundleStore
from edge.cli.bundles import main
from edge.errors import InputError
from tests.foreign_bundle import write_foreign


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    for name in ("one", "two", "three"):
        write_foreign(tmp_path / "store" / name)
    (tmp_path / "store" / "no bundle").mkdir()
    return tmp_path / "store"


def test_use_and_rollback_through_any_history(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two", "two", "three"):
        assert main(["use", name, "--store", str(store)]) == 0
        assert (store / "current").resolve() == store / name and load_bundle(store / "current")
    for before in ("two", "one"):
        assert main(["rollback", "--store", str(store)]) == 0
        assert (store / "current").resolve() == store / before
    capfd.readouterr()
    assert main(["rollback", "--store", str(store)]) == 2
    assert "nothing was in use before" in capfd.readouterr().err and (store / "current").resolve() == store / "one"
    assert main(["list", "--store", str(store)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line[2:].split()[0] for line in lines] == ["one", "three", "two"] and lines[0].startswith("* one")
    assert "foreign for so101" in lines[0]


def test_a_damaged_bundle_is_listed_and_not_put_in_use(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["use", "one", "--store", str(store)]) == 0
    manifest = json.loads((store / "two/manifest.json").read_text())
    name = next(iter(manifest["files"]))
    (store / "two" / name).write_bytes(b"something else")
    (store / "three/manifest.json").write_text("{")
    capfd.readouterr()
    for wrong in ("two", "three", "four", "../one", "current"):
        assert main(["use", wrong, "--store", str(store)]) == 2
        assert capfd.readouterr().err.count("\n") == 1
        assert (store / "current").resolve() == store / "one"
    assert main(["list", "--store", str(store)]) == 0
    assert "manifest.json" in capfd.readouterr().out.splitlines()[1]


def test_what_is_no_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--store", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capfd.readouterr().err
    (tmp_path / "current").mkdir()
    write_foreign(tmp_path / "one")
    assert main(["use", "one", "--store", str(tmp_path)]) == 2
    assert "is no link" in capfd.readouterr().err


def test_a_history_that_names_what_has_gone(store: Path) -> None:
    at = BundleStore(store)
    for name in ("one", "two", "three"):
        at.use(name)
    one = (store / "two/manifest.json").read_text()
    (store / "two/manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"manifest\.json"):  # and then nothing has changed
        at.rollback()
    (store / "two/manifest.json").write_text(one)
    assert at.in_use() == "three" and at.rollback() == "two"
    at.use("three")
    key = store.parent / "key.pem"
    with pytest.raises(InputError, match="key"):
        at.use("one", key)
    assert at.in_use() == "three"
    (store / "two").rename(store.parent / "two")
    assert at.rollback() == "one"
    (store / HISTORY).write_bytes(b"\xff")
    with pytest.raises(Exception, match="remove it"):
        at.rollback()
