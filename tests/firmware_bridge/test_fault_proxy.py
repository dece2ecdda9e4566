"""The fault proxy does to a line what it says, and the same again from the same seed."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from firmware_bridge.codes import MAGIC, DeviceState
from firmware_bridge.fault_proxy import Faults, FaultyLine, FaultyTransport
from firmware_bridge.framing import FrameReader, encode_frame
from firmware_bridge.messages import SCHEMA_HASH, Heartbeat, Hello
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from firmware_bridge.transports import SerialTransport
from tests.support import FRANKA, Rig

WRITES = [bytes([index]) * 20 for index in range(200)]


def through(faults: Faults, seed: int = 0, step_ns: int = 1_000_000) -> list[tuple[int, bytes]]:
    """Writes one packet a millisecond, reads every millisecond; what came out, and when."""
    line, out = FaultyLine(faults, seed), []
    for index in range(600):
        if index < len(WRITES):
            line.push(WRITES[index], index * step_ns)
        data = b"".join(line.pull(index * step_ns))
        if data:
            out.append((index, data))
    return out


def joined(faults: Faults, seed: int = 0) -> bytes:
    return b"".join(data for _, data in through(faults, seed))


def test_without_faults_everything_passes_at_once() -> None:
    assert through(Faults()) == list(enumerate(WRITES))


@pytest.mark.parametrize(
    "faults",
    [
        Faults(loss=0.1),
        Faults(duplicate=0.1),
        Faults(reorder=0.1),
        Faults(truncate=0.1),
        Faults(byte_loss=0.01),
        Faults(bit_flip=0.01),
        Faults(garbage=0.05),
        Faults(delay_ms=3, jitter_ms=5),
    ],
)
def test_each_fault_happens_and_replays_from_its_seed(faults: Faults) -> None:
    assert through(faults, 1) == through(faults, 1)
    assert through(faults, 1) != through(faults, 2)
    assert through(faults, 1) != through(Faults(), 1)


def test_loss_and_duplication_happen_as_often_as_asked() -> None:
    assert len(joined(Faults(loss=0.25))) == pytest.approx(0.75 * 4000, rel=0.15)
    assert len(joined(Faults(duplicate=0.25))) == pytest.approx(1.25 * 4000, rel=0.1)
    assert sorted(joined(Faults(reorder=0.3))) == sorted(b"".join(WRITES))


def test_a_paced_line_takes_its_time() -> None:
    out = through(Faults(baud=115_200))
    assert b"".join(data for _, data in out) == b"".join(WRITES)
    bytes_per_ms = 115_200 / 10 / 1000
    assert out[-1][0] == pytest.approx(4000 / bytes_per_ms, abs=2)


def test_delay_keeps_the_order() -> None:
    faults = Faults(delay_ms=10, jitter_ms=30)
    assert through(faults)[0][0] >= 10
    assert joined(faults) == b"".join(WRITES)


def test_batches_come_out_on_their_grid() -> None:
    assert {when % 16 for when, _ in through(Faults(batch_ms=16))} == {0}


def test_a_disconnected_line_is_silent() -> None:
    out = through(Faults(disconnect_s=(0.05, 0.1)))
    assert not any(50 <= when < 100 for when, _ in out)
    assert sum(len(data) for _, data in out) == 20 * 150


def test_the_proxy_process_stands_between_host_and_device() -> None:
    device = SimulatorProcess(SimulatedArm("franka", FRANKA.home_rad))
    command = [
        sys.executable,
        "-m",
        "firmware_bridge.fault_proxy",
        "--to",
        f"serial:{device.port}",
        "--bit-flip",
        "0.002",
    ]
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert proxy.stdout is not None
    line = SerialTransport(json.loads(proxy.stdout.readline())["port"])
    reader, frames = FrameReader(), []
    deadline = time.monotonic() + 5
    line.write(encode_frame(5, 0, Hello(MAGIC, SCHEMA_HASH)))
    while time.monotonic() < deadline and (reader.bad_frames == 0 or len(frames) < 20):
        time.sleep(0.02)
        line.write(encode_frame(5, 1, Heartbeat(1)) + encode_frame(5, 0, Hello(MAGIC, SCHEMA_HASH)))
        frames += reader.feed(line.read())
    proxy.terminate()
    proxy.wait()
    line.close()
    device.close()
    assert reader.bad_frames > 0, "flips reach the host"
    assert any(getattr(frame.message, "state", None) == DeviceState.IDLE for frame in frames), "and good frames too"


def test_the_clocks_agree_behind_an_adapter_that_batches() -> None:
    """Probes on the beat of the batches would all see the same long answer, and nothing could be armed."""
    rig = Rig()
    line = FaultyTransport(rig.device, Faults(batch_ms=16), 0, lambda: rig.device.now_us * 1000)
    rig.client.link.transport = line
    rig.device.tick()
    rig.client.connect("franka", FRANKA.hash32, 7)
    assert rig.client.synchronise_clock() < 1000
    rig.close()
