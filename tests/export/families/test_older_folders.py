"""Folders as older versions of LeRobot write them, documents by their own code, give what the newest's give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from export.families.base import CheckpointError
from tests.export.families.lerobot_engines import FOLDERS, read_fixture, values_of
from tools.lerobot.inputs import observations, read

OLDER = Path(__file__).parent / "older"
"""Made by `make lerobot-older`: of each version the documents, of the same policies as the folders beside them."""
VERSIONS = sorted(folder.name for folder in OLDER.iterdir())
OF_RANGE = 1e-4


def folder_of(version: str, name: str, out: Path) -> Path:
    """A newest folder with the documents of an older version, its statistics under the names that these have."""
    folder, documents = out / name, OLDER / version / name
    shutil.copytree(documents, folder)
    shutil.copy(FOLDERS / name / "model.safetensors", folder)
    for document in documents.glob("policy_*.json"):
        statistics = next((FOLDERS / name).glob(f"{document.stem}_*.safetensors"))
        for step in json.loads(document.read_text())["steps"]:
            if "state_file" in step:
                shutil.copy(statistics, folder / step["state_file"])
    return folder


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["act", "act_variant", "diffusion_variant", "smolvla", "pi0", "pi05"])
def test_a_folder_of_an_older_version_computes_the_same(name: str, version: str, tmp_path: Path) -> None:
    folder = folder_of(version, name, tmp_path)
    if name == "pi05" and version < "0.5.1":
        with pytest.raises(CheckpointError, match=r"LeRobot 0\.4 or 0\.5\.0 wrote it"):
            read_fixture(name, folder)
        return
    policy, newest = read_fixture(name, folder), read_fixture(name)
    assert (policy.feeds, policy.links, policy.execute) == (newest.feeds, newest.links, newest.execute)
    inputs, wanted = read(FOLDERS / name)
    networks = {part.name: part.reference() for part in policy.parts}
    sources = {target: source for source, target in policy.links}
    offset = torch.zeros(policy.folder.action_width)
    for seen, right in list(zip(observations(inputs), wanted))[:2]:
        values = values_of(policy, inputs, seen)
        if policy.relative:
            offset = values["state"][: len(offset)] * torch.tensor(policy.relative)
        for part in policy.parts:
            ports = [f"{part.name}.{port}" for port in part.inputs]
            with torch.no_grad():
                made = networks[part.name](*(values[sources.get(port, port)] for port in ports))
            made = made if isinstance(made, tuple) else (made,)
            values.update({f"{part.name}.{port}": tensor for port, tensor in zip(part.outputs, made)})
        found = (values[policy.result] + offset).numpy()
        assert (np.abs(found - right).max(axis=0) <= OF_RANGE * policy.action_range.numpy()).all()


def test_the_versions_differ() -> None:
    """In what they write of the same policy; else the test above would prove nothing."""
    for name in ("act", "diffusion_variant", "smolvla", "pi0"):
        configs = {(OLDER / version / name / "config.json").read_text() for version in VERSIONS}
        configs.add((FOLDERS / name / "config.json").read_text())
        assert len(configs) > 2, name
