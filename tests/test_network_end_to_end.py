"""An SO-101's adapter on one end of a network, its host on the other; what is between them is bad, and then gone."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.log.trace import read_trace
from edge.run.arm import ConnectedArm, client_in_real_time
from firmware_bridge.codes import DeviceState
from firmware_bridge.errors import LinkLost
from firmware_bridge.transports import open_transport
from firmware_bridge.transports.datagrams import NUMBER_SIZE, HostEnd
from firmware_bridge.transports.network import Place, UdpSocket
from tests.servo_bench import SO101
from tests.servo_process import ServoProcess
from tests.so101_motion import Motion
from tests.support import broken_limits, states_in_order

pytestmark = pytest.mark.real_time
CHUNK_NS = 500_000_000


class Child:
    """A process whose first line of stdout is JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 30.0)[0], f"{module} did not start"
        self.said = json.loads(self.process.stdout.readline())

    def end(self) -> str:
        self.process.terminate()
        return self.process.communicate(timeout=20)[0]


@pytest.fixture
def children(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The servos, the adapter that listens, and a network that loses 1 % and delays by up to 5 ms."""
    key = tmp_path / "arm.key"
    key.write_bytes(os.urandom(32).hex().encode())
    key.chmod(0o600)
    servos = ServoProcess(tmp_path)
    trace = tmp_path / "trace.csv"
    arguments = ["--arm", "so101", "--drive", servos.url, "--listen", "127.0.0.1:0", "--key-file", str(key)]
    adapter = Child("edge.cli.adapter", *arguments, "--trace", str(trace))
    faults = ["--loss", "0.01", "--jitter-ms", "5", "--duplicate", "0.01"]
    relay = Child("firmware_bridge.fault_proxy", "--to", f"udp:{adapter.said['listen']}", *faults)
    yield {"adapter": adapter, "relay": relay, "key": key, "trace": trace}
    for child in (relay, adapter):
        if child.process.poll() is None:
            child.end()
    servos.close()


def test_a_bad_network_is_driven_over_and_one_that_is_gone_stops_the_arm(
    children: dict[str, Any], tmp_path: Path
) -> None:
    where, key = children["relay"].said["listen"], children["key"]
    UdpSocket(Place.read(where), connected=True).send(HostEnd(b"another key", b"n" * NUMBER_SIZE).asks(0), None)
    transport = open_transport(f"net:{where}?key_file={key}")
    client = client_in_real_time(transport)
    ConnectedArm.connect(SO101, client).switch_on()
    commanded = np.array(client.wait_for_state().commanded_urad) / 1e6
    began_ns = next_ns = time.monotonic_ns()
    motion = Motion(commanded, round(client.link.clock.device_us(began_ns)) + 300_000)
    chunk, committed, state = 0, 0, None
    gone_ns = began_ns + 3_000_000_000
    with pytest.raises(LinkLost, match="no state from the device"):
        for tick in range(10_000):
            now_ns = time.monotonic_ns()
            if now_ns >= gone_ns and children["relay"].process.poll() is None:
                children["relay"].process.kill()
                children["relay"].process.wait()
            client.heartbeat(tick + 2)
            if now_ns >= next_ns:
                client.send_chunk(motion.chunk(chunk))
                chunk, next_ns = chunk + 1, next_ns + CHUNK_NS
            inbox = client.poll(now_ns)
            committed += len(inbox.committed)
            state = inbox.state or state
            client.keep_clock(now_ns, 0.01)
            client.check_alive(now_ns)
            time.sleep(0.005)
    assert state is not None and state.state == DeviceState.STREAMING and committed >= 4
    time.sleep(0.6)
    told = json.loads(children["adapter"].end().strip().splitlines()[-1])
    trace = read_trace(children["trace"])
    assert states_in_order(trace)[-3:] == ["STREAMING", "DECEL", "HOLD"]
    assert broken_limits(trace, SO101) == []
    assert told["datagrams_forged"] == 1 and told["datagrams"] > 300
    transport.close()
