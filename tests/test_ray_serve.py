"""The example `ray_serve.py`: two replicas of a bundle on this machine, one of them killed; `make ray`.

Ray is large, and in an environment of its own; VLA_EDGE_RAY names its Python.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from edge.arms import load_arm
from edge.log.trace import read_trace
from edge.policy.base import open_policy
from edge.policy.remote import ServerAddress, describe_server
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene
from tests.foreign_bundle import FRONT_PX, WRIST_PX, write_foreign
from tests.support import broken_limits

pytestmark = pytest.mark.slow  # starts a Ray cluster: half a minute
PYTHON = os.environ.get("VLA_EDGE_RAY", "")
needs_ray = pytest.mark.skipif(not PYTHON, reason="VLA_EDGE_RAY names no Python; `make ray` does")
ROOT = Path(__file__).resolve().parents[1]
ARM = load_arm("so101")
READY_S, END_S, AGAIN_S = 180.0, 60.0, 90.0
CHUNKS = 300
"""Of each client."""
OBSERVATION = {
    "observation/front": np.zeros((2, *FRONT_PX, 3), np.uint8),
    "observation/wrist": np.zeros((2, *WRIST_PX, 3), np.uint8),
    "observation/state": np.zeros((2, ARM.dof)),
}


def descendants(pid: int) -> list[int]:
    """Of a process, all that it and they have started."""
    found = [pid]
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def replicas(pid: int) -> list[int]:
    """The processes of Ray's that hold the bundle."""
    found = []
    for one in descendants(pid):
        try:
            found += [one] if b"ServeReplica" in Path(f"/proc/{one}/cmdline").read_bytes() else []
        except OSError:
            continue
    return sorted(found)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The example's process and its port."""
    bundle = write_foreign(tmp_path_factory.mktemp("ray") / "bundle")
    line = [PYTHON, str(ROOT / "examples" / "ray_serve.py"), str(bundle), ARM.name, "--port", "0", "--cpus", "0.1"]
    line += ["--patience", "5"]  # this machine may be busy
    quiet = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ | quiet)
    assert process.stdout is not None
    try:
        while True:
            assert select.select([process.stdout], [], [], READY_S)[0], "it says nothing"
            told = process.stdout.readline()
            assert told, f"it ended: {process.wait(END_S)}"
            if told.startswith("{"):
                break
        yield process.pid, json.loads(told)["port"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0


def again(pid: int, but: int) -> list[int]:
    """The two replicas, once Ray has started another one in the place of `but`."""
    until_s = time.monotonic() + AGAIN_S
    while (but in (now := replicas(pid)) or len(now) < 2) and time.monotonic() < until_s:
        time.sleep(0.5)
    return now


@needs_ray
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_a_replica_that_goes_costs_no_chunk(served: tuple[int, int], end: signal.Signals) -> None:
    """Three clients, so that both replicas are at work when it happens."""
    pid, port = served
    before = again(pid, 0)
    assert len(before) == 2
    slowest_s = []

    def asks() -> None:
        client = WebsocketClientPolicy("127.0.0.1", port)
        for _ in range(CHUNKS):
            began_s = time.monotonic()
            assert client.infer(OBSERVATION)["actions"].shape[1] == ARM.dof
            slowest_s.append(time.monotonic() - began_s)

    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(asks) for _ in range(3)]
        while len(slowest_s) < CHUNKS:
            time.sleep(0.001)
        os.kill(before[0], end)
        for one in asking:
            one.result(120)  # raises what a client got in place of a chunk
    assert len(slowest_s) == 3 * CHUNKS
    now = again(pid, before[0])
    assert len(now) == 2 and before[0] not in now, "Ray starts another one"
    client = WebsocketClientPolicy("127.0.0.1", port)
    with pytest.raises(RuntimeError, match="observation/state"):
        client.infer({})
    assert client.infer(OBSERVATION)["actions"].shape[1] == ARM.dof, "a refused observation ends nothing"
    print(f"\n{end.name}: {3 * CHUNKS} chunks, the slowest {max(slowest_s):.2f} s")


@needs_ray
def test_an_arm_moves_on_while_a_replica_is_killed(served: tuple[int, int], tmp_path: Path) -> None:
    pid, port = served
    bundle = describe_server(ServerAddress(f"openpi://127.0.0.1:{port}", 60.0), ARM, "", tmp_path / "bundle", None)
    policy, settings = open_policy(bundle, ARM.name, "", 1), LockstepSettings("", 3.0, seed=1, trace=tmp_path / "t.csv")
    asked = []
    infer = policy.infer

    def kills(observed: object) -> object:
        asked.append(0)
        if len(asked) == 3:
            os.kill(replicas(pid)[0], signal.SIGKILL)
        return infer(observed)

    policy.infer = kills
    outcome = run_lockstep(bundle, ARM, policy, open_scene(ARM, 3), settings)
    assert outcome.stop is None and len(asked) > 4
    assert broken_limits(read_trace(tmp_path / "t.csv"), ARM) == []
    assert len(outcome.controller.counters.committed_ids) >= 0.9 * outcome.controller.counters.chunks
