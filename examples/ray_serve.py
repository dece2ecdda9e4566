"""One bundle on several machines or GPUs: replicas under Ray Serve, and one door for openpi's clients in front of them.

    pip install 'vla-edge[serve]' 'ray[serve]'                      # on every machine, and the bundle in the same place
    ray start --head                                               # and on the others: ray start --address=HEAD:6379
    python examples/ray_serve.py bundle franka --replicas 4 --address auto
    edge-run --arm franka --policy openpi://127.0.0.1:8000 --task "reach the red cube"

Each observation stands for itself, so any replica may answer any. One that dies costs nobody its chunk: another one
computes it, and Ray starts a new one. The arm waits for it as for any late chunk, and is stopped in order when none
comes. Without --address all of it runs on this machine.
"""

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.doors.openpi_server import PolicyServer
from edge.doors.served import ServedBundle
from edge.errors import InputError, VlaEdgeError

ALL_S = 60.0
"""For any replica to answer; `edge-run --policy-timeout` is what an arm waits for."""


class Replica:
    """A bundle in a process of Ray's."""

    def __init__(self, bundle: str, arm: str, task: str, threads: int) -> None:
        self._policy = ServedBundle(load_bundle(Path(bundle)), load_arm(arm), task, "auto", threads)

    def metadata(self) -> dict[str, Any]:
        return self._policy.metadata()

    def answer(self, observation: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The chunk, or why there is none: an error of Ray's is then always one of Ray's."""
        try:
            return self._policy.answer(observation), ""
        except InputError as error:
            return {}, str(error)


class Replicas:
    """All of them as one policy, for `PolicyServer`; one that does not answer within `patience_s` is given up."""

    def __init__(self, handle: Any, patience_s: float) -> None:
        self._handle, self._patience_s = handle, patience_s

    def metadata(self) -> dict[str, Any]:
        return self._handle.metadata.remote().result(timeout_s=ALL_S)

    def answer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        until_s = time.monotonic() + ALL_S
        while True:
            response = self._handle.answer.remote(dict(observation))
            try:
                answer, refusal = response.result(timeout_s=self._patience_s)
                break
            except (RayError, TimeoutError) as error:
                response.cancel()  # else it is computed all the same, before those that are waited for
                if time.monotonic() > until_s:
                    raise InputError(f"no replica answers ({type(error).__name__})") from None
        if refusal:
            raise InputError(refusal)
        return answer


async def serve_clients(server: PolicyServer, host: str, port: int) -> None:
    """Until Ctrl-C or SIGTERM."""
    listening = await server.open(host, port)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(json.dumps({"host": host, "port": listening.sockets[0].getsockname()[1]}), flush=True)
    await stopped.wait()
    listening.close()
    await listening.wait_closed()
    server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("arm")
    parser.add_argument("--task", default="", help="for observations without a prompt")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each replica's engines")
    parser.add_argument("--cpus", type=float, default=1.0, help="of each replica")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each replica")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds for one replica's chunk, then another's")
    parser.add_argument("--address", help="of a Ray cluster; auto: the one that this machine belongs to")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--key-file", type=Path, help="with what clients have to send; needed beyond loopback")
    args = parser.parse_args()
    ray.init(address=args.address, log_to_driver=False, include_dashboard=False)
    serve.start(proxy_location="Disabled")  # openpi's clients come to the door below
    deployment = serve.deployment(
        Replica,
        name="policy",
        num_replicas=args.replicas,
        max_ongoing_requests=1,
        health_check_period_s=1,
        health_check_timeout_s=10,
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.gpus},
    )
    try:
        handle = serve.run(
            deployment.bind(str(args.bundle.resolve()), args.arm, args.task, args.threads), route_prefix=None
        )
        key = args.key_file and args.key_file.read_text().strip()
        asyncio.run(
            serve_clients(
                PolicyServer(Replicas(handle, args.patience), key, at_once=args.replicas), args.host, args.port
            )
        )
    except VlaEdgeError as error:
        print(f"ray_serve.py: {error}")
        return error.exit_code
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
