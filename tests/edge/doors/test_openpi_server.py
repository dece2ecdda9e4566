"""The server of policies: what an unmodified `openpi-client` gets, and what anybody else gets."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from edge.doors.openpi_server import MOST_CLIENTS, PolicyServer
from edge.errors import InputError
from edge.policy.openpi import pack, unpack
from tests.openpi_servers import serving


class Adds:
    """Moves every joint by the mean of the frame, and counts how many observations are in work at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0

    def metadata(self) -> dict[str, Any]:
        return {"horizon": 4, "axes": ["a", "b"]}

    def answer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            state = observation.get("observation/state")
            if state is None:
                raise InputError("'observation/state' is missing; send (2,) in rad")
            return {"actions": np.tile(state + observation["observation/image"].mean() / 255, (4, 1))}
        finally:
            self.inside -= 1


pytestmark = pytest.mark.long  # servers and their clients

OBSERVATION = {
    "observation/image": np.full((8, 8, 3), 51, np.uint8),
    "observation/state": np.array([0.5, -0.5]),
    "prompt": "x",
}


def test_the_unmodified_client_gets_metadata_chunks_and_errors() -> None:
    with serving(Adds()) as port:
        client = WebsocketClientPolicy("127.0.0.1", port)
        assert client.get_server_metadata() == {"horizon": 4, "axes": ["a", "b"]}
        answer = client.infer(OBSERVATION)
        np.testing.assert_allclose(answer["actions"], np.tile([0.7, -0.3], (4, 1)))
        assert answer["server_timing"]["total_ms"] >= answer["server_timing"]["infer_ms"] >= 0
        with pytest.raises(RuntimeError, match="'observation/state' is missing"):
            client.infer({"observation/image": OBSERVATION["observation/image"]})
        assert client.infer(OBSERVATION)["actions"].shape == (4, 2), "a refused observation ends nothing"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            text = page.read().decode()
    assert "vla_edge_serve_chunks_total 2.0" in text and "vla_edge_serve_refused_total 1.0" in text


def test_health_is_for_everybody_and_the_rest_for_those_with_the_key() -> None:
    with serving(Adds(), key="secret") as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as page:
            assert page.read() == b"OK\n"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
        for wrong in (None, "secrex", "", "Secret"):
            with pytest.raises(InvalidStatus, match="401"):
                WebsocketClientPolicy("127.0.0.1", port, api_key=wrong)
        assert WebsocketClientPolicy("127.0.0.1", port, api_key="secret").infer(OBSERVATION)["actions"].shape == (4, 2)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_interfaces_than_loopback_need_a_key(host: str) -> None:
    with pytest.raises(InputError, match="--key-file"), serving(Adds(), host=host):
        pass


def test_a_port_in_use_is_one_line() -> None:
    with serving(Adds()) as port, pytest.raises(InputError, match="choose another --port"):
        asyncio.run(PolicyServer(Adds()).open("127.0.0.1", port))


def test_clients_take_turns_and_are_capped() -> None:
    policy = Adds()
    with serving(policy) as port:
        clients = [WebsocketClientPolicy("127.0.0.1", port) for _ in range(MOST_CLIENTS)]
        with pytest.raises(InvalidStatus, match="503"):
            WebsocketClientPolicy("127.0.0.1", port)
        threads = [
            threading.Thread(target=lambda c=client: [c.infer(OBSERVATION) for _ in range(5)]) for client in clients
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            assert f"vla_edge_serve_chunks_total {5.0 * MOST_CLIENTS}" in page.read().decode()
    assert policy.most == 1


def test_hostile_messages_cost_their_client_at_most_its_connection() -> None:
    draw = np.random.default_rng(0)
    valid = bytearray(pack(OBSERVATION))
    with serving(Adds()) as port:
        for _ in range(60):
            with connect(f"ws://127.0.0.1:{port}", compression=None) as client:
                client.recv()
                changed = valid.copy()
                changed[draw.integers(len(changed))] = draw.integers(256)
                for data in ("text", draw.bytes(40), bytes(changed)):
                    client.send(data)
                    answer = client.recv(timeout=10)
                    if isinstance(answer, str):
                        assert 0 < len(answer) <= 300 and answer.isprintable()
                    else:
                        assert unpack(answer)["actions"].shape[0] == 4
        assert WebsocketClientPolicy("127.0.0.1", port).infer(OBSERVATION)["actions"].shape == (4, 2)
