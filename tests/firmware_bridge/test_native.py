"""Which core is executed: the wheel's, for either processor, or one compiled here; never one of another user."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_bridge import native
from firmware_bridge.errors import BuildError
from firmware_bridge.native import NativeDevice, build, compile_replay, replay_in
from firmware_bridge.replay import Replay, unpack_corpus
from tools.wheels import GLIBC, MACHINES, compile_core, compiler

HERE = platform.machine()
LOADER = Path(__file__).with_name("load_core.c")
BEHAVIOUR = Path(__file__).resolve().parents[1] / "vectors" / "behaviour.json"
EMULATOR = ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu")


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NativeDevice]:
    """What the wheels hold, by processor."""
    return {machine: compile_core(machine, tmp_path_factory.mktemp(machine)) for machine in MACHINES}


@pytest.fixture
def wheel(cores: dict[str, NativeDevice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NativeDevice:
    """A package with the core of this machine's wheel, where there is no compiler and no folder to write."""
    monkeypatch.delenv(native.OVERRIDE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    monkeypatch.setattr(native, "PREBUILT", tmp_path / "prebuilt")
    shutil.copytree(cores[HERE].folder, native.PREBUILT)
    return NativeDevice(native.PREBUILT)


def newest_glibc(binary: Path) -> tuple[int, int]:
    """The newest version of glibc that a program or library needs."""
    symbols = subprocess.run(
        ["readelf", "--version-info", "--wide", binary], capture_output=True, text=True, check=True
    )
    return max((int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols.stdout))


@pytest.mark.parametrize("machine", MACHINES)
def test_a_wheels_core_needs_no_newer_glibc_than_its_tag_allows(cores: dict[str, NativeDevice], machine: str) -> None:
    header = subprocess.run(["readelf", "--file-header", cores[machine].library], capture_output=True, text=True)
    assert {"x86_64": "X86-64", "aarch64": "AArch64"}[machine] in header.stdout
    assert newest_glibc(cores[machine].library) <= GLIBC
    assert newest_glibc(cores[machine].program) <= GLIBC


def test_the_core_behaves_on_aarch64_bit_for_bit_as_here(cores: dict[str, NativeDevice], tmp_path: Path) -> None:
    """Loaded by a program of that processor, under QEMU where this is another one."""
    emulated = () if HERE == "aarch64" else EMULATOR
    compile_replay(tmp_path, compiler=compiler("aarch64"))
    loader = tmp_path / "load_core"
    subprocess.run([*compiler("aarch64"), "-O1", str(LOADER), "-o", str(loader), "-ldl"], check=True)
    inputs = unpack_corpus("device", tmp_path / "corpus")
    command = [*emulated, loader, cores["aarch64"].library, replay_in(tmp_path), *inputs]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert printed[0] == "1000000", "one second of device time"
    assert dict(zip((path.name for path in inputs), printed[1:])) == json.loads(BEHAVIOUR.read_text())["corpus"]


def test_the_simulated_device_starts_on_aarch64(cores: dict[str, NativeDevice]) -> None:
    emulated = () if HERE == "aarch64" else EMULATOR
    command = [*emulated, cores["aarch64"].program, "--arm", "so101", "--start", "0,0,0,0,0,0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        process.terminate()
    assert (started["arm"], started["joints"], process.returncode) == ("so101", 6, 0)


def test_the_other_compiler_behaves_bit_for_bit_as_this_one(tmp_path: Path) -> None:
    compile_replay(tmp_path, compiler=compiler(HERE))
    assert Replay(replay_in(tmp_path)).corpus() == json.loads(BEHAVIOUR.read_text())["corpus"]


def test_a_wheel_needs_neither_a_compiler_nor_a_folder_to_write(wheel: NativeDevice) -> None:
    assert build() == wheel
    assert re.fullmatch(r"prebuilt in the wheel, by zig [\d.]+ for glibc 2\.28", wheel.origin())


@pytest.mark.parametrize(("key", "other"), [("sources", "0" * 64), ("machine", "riscv64")])
def test_a_core_of_other_sources_or_for_another_machine_is_not_used(wheel: NativeDevice, key: str, other: str) -> None:
    wheel.record.write_text(json.dumps({**json.loads(wheel.record.read_text()), key: other}))
    with pytest.raises(BuildError, match="XDG_CACHE_HOME"):
        build()


@pytest.mark.parametrize("name", ["", "bridge-sim", "libbridge_sim.so"])
def test_a_core_that_other_users_may_write_is_not_used(wheel: NativeDevice, name: str) -> None:
    (wheel.folder / name).chmod(0o777)
    with pytest.raises(BuildError, match="other users may write"):
        build()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_core_of_another_user_is_not_used(wheel: NativeDevice) -> None:
    os.chown(wheel.library, 12345, -1)
    with pytest.raises(BuildError, match="other users may write"):
        build()


def test_without_a_wheel_and_without_a_compiler_the_message_names_both(
    wheel: NativeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(wheel.folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BuildError, match=r"install vla-edge from its wheel, or: sudo apt-get install gcc"):
        build()


@pytest.fixture
def checkout(wheel: NativeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources with a compiler that only makes empty files, and the temporary folder."""
    shutil.rmtree(wheel.folder)
    fake = tmp_path / "fake-cc"
    fake.write_text('#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done; echo "fake 1.0"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"vla-edge-{os.geteuid()}"


def test_where_home_is_not_writable_it_is_compiled_into_a_private_temporary_folder(checkout: Path) -> None:
    device = build()
    assert device.folder.parent == checkout and checkout.stat().st_mode & 0o777 == 0o700
    assert device.origin() == f"compiled into {device.folder}, by fake 1.0"


def test_a_home_that_is_writable_comes_first(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build().folder.parent == tmp_path / ".cache" / "vla-edge"


def test_a_temporary_folder_that_somebody_else_may_write_is_not_used(checkout: Path) -> None:
    checkout.mkdir()
    checkout.chmod(0o777)
    with pytest.raises(BuildError, match="this user alone can write neither of"):
        build()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_a_link_of_another_user_is_not_followed(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    checkout.symlink_to(tmp_path / "own")
    os.chown(checkout, 12345, -1, follow_symlinks=False)
    with pytest.raises(BuildError, match="this user alone can write neither of"):
        build()
