"""The configuration is plain data, complete and checked."""

from __future__ import annotations

import dataclasses
import json

import pytest

from export.families.action_prior.config import PRESETS, ConfigError, PolicyConfig, tiny


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_configuration_survives_json(name: str) -> None:
    config = PRESETS[name]()
    assert PolicyConfig.from_plain(json.loads(json.dumps(config.to_plain()))) == config


def test_the_paper_s_numbers() -> None:
    for config in (PRESETS["tiny"](), PRESETS["paper"]()):
        assert (config.horizon, config.history, config.action_slots, config.state_slots) == (15, 15, 37, 74)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_injection": "magic"}, "latent_injection"),
        ({"image_px": (100, 96)}, "image_px"),
        ({"max_delay": 15}, "max_delay"),
        ({"flow_steps": 0}, "flow_steps"),
        ({"normalisation_quantile": 0.5}, "normalisation_quantile"),
        ({"mrope_section": (1, 1, 1)}, "mrope_section"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(tiny(), **change).checked()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(PolicyConfig)])
@pytest.mark.parametrize("value", [None, -3, 10**9, 10**18, float("nan"), "15", [], {"a": 1}, 15.5])
def test_no_size_is_believed(name: str, value: object) -> None:
    """Whatever stands where a size belongs, it is refused with its name, or it is one of the few that are allowed."""
    try:
        config = PolicyConfig.from_plain({**tiny().to_plain(), name: value})
    except ConfigError as error:
        assert str(error).isprintable() and len(str(error)) < 260
        return
    assert getattr(config, name) == value and isinstance(value, (bool, int, float)) and abs(value) < 1e6


def test_unknown_and_missing_fields_are_refused() -> None:
    plain = tiny().to_plain()
    with pytest.raises(ConfigError, match="flux"):
        PolicyConfig.from_plain({**plain, "flux": 1})
    del plain["vision"]
    with pytest.raises(ConfigError, match="vision"):
        PolicyConfig.from_plain(plain)
