"""The README's table of extras, which `make extras` holds against what pip resolves."""

from __future__ import annotations

import tomllib

from tools.extras import PYTHONS, README, ROOT, said


def test_the_readme_has_a_row_for_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = said(README.read_text())
    assert set(table) == {"", *extras} - {"dev"}
    assert {len(wheels) for wheels in table.values()} == {len(PYTHONS)}
    assert table["log"] == (True, True) and table["franka"] == (False, False)
