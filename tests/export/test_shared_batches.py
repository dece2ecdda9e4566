"""Parts of a batch, one after another or in several processes, make the step that the whole batch makes."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.families.action_prior.checkpoint import Checkpoint
from export.families.action_prior.policy import VlaPolicy
from export.training.average import Average
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.prior import train_prior
from export.training.processes import ALONE, Processes
from export.training.records import read_records
from export.training.schedule import TrainingError
from export.training.vla import Plan, Start, train_vla
from tests.export.small import INSTRUCTIONS, QUIET, few, read_windows, small, write_dataset

CONFIG = small()
STEPS, BATCH = 4, 10


def vla(root: Path, out: Path, processes: Processes = ALONE, **settings: object) -> dict[str, torch.Tensor]:
    """Stage 2 with every term of the loss, on windows that are not all whole."""
    windows, arm = read_windows(root, CONFIG)
    tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
    text = InstructionTokens(tokenizer, tuple(INSTRUCTIONS), CONFIG.token_budget)
    torch.manual_seed(5)
    weights = {name: value for name, value in VlaPolicy(CONFIG).state_dict().items() if "backbone" not in name}
    start = Start(Checkpoint(CONFIG, weights, (arm,), None), tokenizer)
    chosen = dataclasses.replace(QUIET, validate_every=2, held_out=0.5, validation_windows=80, **settings)  # type: ignore[arg-type]
    schedule = few(STEPS, batch=BATCH, save_every=2)
    return train_vla(start, windows, text, schedule, Plan(), chosen, out, processes).state_dict


def assert_close(one: Path, other: Path) -> None:
    """All losses, norms and errors of two runs agree to rounding; and they do move."""
    first, second = (read_records(folder / "vla.metrics.jsonl") for folder in (one, other))
    assert len(first) == len(second) == STEPS
    for a, b in zip(first, second):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=2e-4, abs=1e-6), (a["step"], name)
    assert first[0]["loss"] != pytest.approx(first[-1]["loss"], rel=1e-2)
    assert "validation_mae" in first[1] and "validation_mae_rad" in first[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    root = tmp_path_factory.mktemp("whole")
    data = write_dataset(root / "data", frames=64)
    return data, root, vla(data, root)


@pytest.mark.parametrize("micro_batch", [4, 1])
def test_micro_batches_equal_the_batch(
    micro_batch: int, whole: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    data, folder, weights = whole
    parts = vla(data, tmp_path, micro_batch=micro_batch)
    assert_close(folder, tmp_path)
    assert max(float((value - parts[name]).abs().max()) for name, value in weights.items()) < 2e-4


def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(out: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Two processes on this machine, through torch's own launcher."""
    launch = ["torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    (out / "script.py").write_text(script)
    command = [sys.executable, "-m", *launch, "--master-port", str(port()), str(out / "script.py"), *arguments]
    where = {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env={**os.environ, **where}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


SHARED = """
import sys
from pathlib import Path
from export.training.processes import join
from tests.export.test_shared_batches import vla
processes = join("cpu")
vla(Path(sys.argv[1]), Path(sys.argv[2]), processes)
processes.wait()
processes.leave()
"""


def test_two_processes_equal_one(whole: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    data, folder, _ = whole
    process = torchrun(tmp_path, SHARED, str(data), str(tmp_path))
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said[-2000:]
    assert_close(folder, tmp_path)
    shared = torch.load(tmp_path / "vla.training.pt", weights_only=True)
    alone = torch.load(folder / "vla.training.pt", weights_only=True)
    for part in ("module", "average"):
        for name, value in alone[part].items():
            assert (value - shared[part][name]).abs().max() < 2e-4, name
    assert {path.name for path in tmp_path.iterdir()} == {"script.py", "vla.metrics.jsonl", "vla.training.pt"}


FAILING = """
from export.training.processes import join
processes = join("cpu")
processes.add([1.0])
if processes.rank == 1:
    raise RuntimeError("no more memory in process 1")
processes.add([2.0])
"""


def test_an_error_of_one_process_ends_all(tmp_path: Path) -> None:
    """Process 0 waits for gradients that never come; the launcher must end it, not its timeout of minutes."""
    process = torchrun(tmp_path, FAILING)
    _, said = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "no more memory in process 1" in said


def test_shares_cover_a_batch_once() -> None:
    for batch, count in ((10, 2), (7, 3), (2048, 8)):
        rows = [row for rank in range(count) for row in range(batch)[Processes(rank, count).share(batch)]]
        assert rows == list(range(batch))
    with pytest.raises(TrainingError, match="--batch 2 cannot be shared by 3 processes"):
        Processes(0, 3).share(2)


def test_processes_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(said: list[object], mine: object) -> None:
        said[:] = [mine, "other data"]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    with pytest.raises(TrainingError, match="the run: process 1 has other data, process 0 has this"):
        Processes(0, 2).agree("the run", "this")


def test_the_average_follows_its_schedule_and_swaps_without_a_trace() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1.0)
    average = Average(module, decay=0.5)
    expected = 1.0
    for step, value in enumerate((2.0, -1.0, 5.0, 3.0, 0.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)):
        module.weight.data.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 4.0


def test_the_checkpoint_gets_the_average_or_the_last_weights(tmp_path: Path) -> None:
    windows, arm = read_windows(write_dataset(tmp_path / "data"), CONFIG)
    kept = {}
    for name, settings in {
        "average": QUIET,
        "last": dataclasses.replace(QUIET, keep="last"),
        "none": dataclasses.replace(QUIET, ema_decay=0.0),
    }.items():
        out = tmp_path / name
        out.mkdir()
        kept[name] = train_prior(CONFIG, windows, (arm,), few(5), settings, out).state_dict
        state = torch.load(out / "prior.training.pt", weights_only=True)
        wanted = {**state["module"], **(state["average"] if name == "average" else {})}
        assert all(torch.equal(value, wanted[key]) for key, value in kept[name].items())
    assert all(torch.equal(value, kept["none"][key]) for key, value in kept["last"].items())
    assert not torch.equal(kept["average"]["decoder.action_out.weight"], kept["last"]["decoder.action_out.weight"])
