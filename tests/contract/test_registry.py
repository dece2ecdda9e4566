"""Registries: what is read from a URL, which names exist, and one clear line for a driver that cannot be used."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from edge.arms.drives import DRIVES
from edge.cameras import CAMERAS
from edge.cameras.faults import FaultOptions
from edge.cameras.health import HealthOptions
from edge.registry import Registry, option
from firmware_bridge.transports import LINES
from firmware_bridge.url import options_of


class Refused(Exception):
    """What the registries of these tests raise."""


@dataclass(frozen=True)
class Probe:
    """A driver with one option of each type."""

    FORM: ClassVar[str] = "probe:PATH?many=N&share=S&loud=0|1&way=up|down&at=FILE&word=TEXT&wide=X"
    target: Path
    many: int = option(3, least=1, most=9)
    share: float | None = option(None, most=1)
    loud: bool = False
    way: Literal["up", "down"] = "up"
    path: Path | None = option(None, name="at")
    word: str | None = None
    wide: float = 1.0

    def open(self) -> None:
        pass


PROBE = {"probe": f"{__name__}:Probe"}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def registry(builtin: dict[str, str] = PROBE) -> Registry[Probe]:
    return Registry("vla_edge.probes", "probe", builtin, Refused)


def test_every_type_is_read() -> None:
    read = registry().read("probe:/dev/x:1?many=9&share=0.5&loud=1&way=down&at=a/b&word=a%20b")
    assert read == Probe(Path("/dev/x:1"), 9, 0.5, True, "down", Path("a/b"), "a b")
    assert registry().read("probe:y") == Probe(Path("y"))


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("nobody", "no probe 'nobody'; write probe:PATH?many=N"),
        ("other:x", "no probe 'other:x'; write probe:PATH?many=N"),
        ("probe:", "'probe:': something must stand after the colon; write probe:PATH?many=N"),
        ("probe:x?speed=1", "unknown option speed"),
        ("probe:x?path=a", "unknown option path"),  # its name in a URL is another one
        ("probe:x?many=0", "many must be a whole number from 1 to 9"),
        ("probe:x?many=1.5", "many must be a whole number from 1 to 9"),
        ("probe:x?share=nan", "share must be a number from 0 to 1"),
        ("probe:x?share=inf", "share must be a number from 0 to 1"),
        ("probe:x?wide=inf", "wide must be a number from 0; write"),
        ("probe:x?loud=yes", "loud must be 0 or 1, not 'yes'"),
        ("probe:x?way=left", "way must be up or down, not 'left'"),
        ("probe:x?at=", "at must not be empty"),
    ],
)
def test_a_wrong_url_is_one_line_with_its_form(url: str, line: str) -> None:
    with pytest.raises(Refused) as caught:
        registry().read(url)
    assert line in str(caught.value) and str(caught.value).endswith(Probe.FORM)


def test_a_builtin_whose_library_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # as where it is not installed
    drivers = registry({**PROBE, "seen": "cv2:VideoCapture"})
    with pytest.raises(Refused, match=r"^probe 'seen' needs cv2, which is missing: pip install 'vla-edge\[camera\]'$"):
        drivers.load("seen")
    assert drivers.load("probe") is Probe and drivers.forms() == f"{Probe.FORM}, seen:..."


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of somebody else's with good and bad entry points, as pip leaves one."""
    (tmp_path / "somebody.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Good:\n"
        "    FORM = 'good:'\n"
        "    def open(self): return 'opened'\n"
        "class NoDriver:\n"
        "    def open(self): pass\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('no licence\\nfound')\n")
    info = tmp_path / "somebody-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[vla_edge.probes]\ngood = somebody:Good\nprobe = somebody:Good\nbroken = broken:Any\ngone = somebody:Gone\n"
        "plain = somebody:NoDriver\nabsent = nowhere:Any\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_package_adds_a_driver(installed: Path) -> None:
    drivers = registry({"own": PROBE["probe"]})
    assert drivers.names() == ("own", *sorted(["absent", "broken", "gone", "good", "plain", "probe"]))
    assert "good:..." in drivers.forms() and drivers.read("good:").open() == "opened"
    assert "broken" not in sys.modules, "the names of drivers and their forms import nothing"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("probe", "probe 'probe' is the project's own and comes from the package somebody as well; uninstall"),
        ("broken", "probe 'broken' of the package somebody cannot be loaded (RuntimeError: no licence found)"),
        ("gone", "probe 'gone' of the package somebody cannot be loaded (AttributeError"),
        ("absent", "probe 'absent' of the package somebody cannot be loaded (ModuleNotFoundError"),
        ("plain", "probe 'plain' of the package somebody is no driver, a dataclass with a method open"),
        ("other", "no probe 'other'; choose one of probe, absent"),
    ],
)
def test_a_driver_that_cannot_be_used_is_refused_by_name(installed: Path, name: str, line: str) -> None:
    drivers = registry()
    assert drivers.forms(), "the help of the others stands"
    with pytest.raises(Refused) as caught:
        drivers.load(name)
    assert line in str(caught.value) and "\n" not in str(caught.value)
    assert drivers.load("good")


def test_two_packages_with_one_name_are_refused(installed: Path) -> None:
    info = installed / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vla_edge.probes]\ngood = somebody:Good\n")
    with pytest.raises(Refused, match=r"'good' is registered twice, from the package \w+ and the package \w+"):
        registry().load("good")


URL_DRIVERS = [(kind, name) for kind in (CAMERAS, LINES, DRIVES) for name in kind.builtin]


@pytest.mark.parametrize(("kind", "name"), URL_DRIVERS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_form_of_a_url_names_its_options(kind: Registry[Probe], name: str) -> None:
    driver = kind.load(name)
    assert driver.FORM.startswith(f"{name}:")
    named = re.findall(r"(\w+)=", driver.FORM.partition("?")[2])
    assert sorted(named) == sorted(options_of(driver))
    common = {*options_of(HealthOptions), *options_of(FaultOptions)}
    assert kind is not CAMERAS or not common & set(named), "an option of every camera is no driver's own"
