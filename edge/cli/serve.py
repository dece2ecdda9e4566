"""`edge-serve`: a bundle as a policy server, for any client that speaks openpi's protocol."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from edge.arms import available_arms, load_arm
from edge.bundle import load_bundle
from edge.cli.parser import TRUST, add_version, complain, count, described
from edge.engines import engine_choices
from edge.errors import InputError, VlaEdgeError
from edge.registry import missing
from edge.run.health import Health
from firmware_bridge.printing import print_line

PORT = 8000
MOST_KEY = 256
HEALTH_S = 2.0


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-serve",
        **described(
            "Serves a bundle's policy to openpi's clients: websocket, /healthz, and /metrics for Prometheus. "
            "The first line of stdout is JSON with its port.",
            """
            edge-serve --bundle bundle --arm franka --task "reach the red cube"
            edge-serve --bundle bundle --arm so101 --host 0.0.0.0 --key-file key.txt
            edge-run --arm franka --policy openpi://127.0.0.1:8000 --task "reach the red cube"    # beside it
            """,
            "It runs until Ctrl-C or SIGTERM. Clients take turns. Exit code 2: bad input.",
        ),
    )
    add_version(root)
    add = root.add_argument
    add("--bundle", type=Path, required=True, metavar="DIR", help="folder made by edge-export")
    add("--trust", type=Path, metavar="KEY", help=TRUST)
    add("--arm", required=True, metavar="NAME", help=f"what it moves: {', '.join(available_arms())}, or a .toml file")
    add("--task", metavar="TEXT", help="for observations without a prompt (default: the bundle's own)")
    add("--host", default="127.0.0.1", help="where to listen (default %(default)s); beyond loopback with a key alone")
    add("--port", type=int, default=PORT, metavar="N", help="0 for any that is free (default %(default)d)")
    add("--key-file", type=Path, metavar="FILE", help="clients have to send what stands in it as their API key")
    add("--engine", choices=engine_choices(), default="auto", help="what runs the graphs (default %(default)s)")
    add("--threads", type=count, default=2, metavar="N", help="threads per engine (default %(default)d)")
    add("--seed", type=int, default=0, help="of the flow noise (default %(default)d)")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        asyncio.run(_serve(args))
    except VlaEdgeError as error:
        complain("edge-serve", error)
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(args: argparse.Namespace) -> None:
    try:
        from edge.doors.openpi_server import PolicyServer
        from edge.doors.served import ServedBundle
    except ImportError as error:
        raise InputError(missing("edge-serve", error)) from None
    key = _key(args.key_file)
    bundle, arm = load_bundle(args.bundle.resolve(), trust=args.trust), load_arm(args.arm)
    task = args.task if args.task is not None or bundle.manifest.text is None else bundle.manifest.text.task
    served = ServedBundle(bundle, arm, task or "", args.engine, args.threads, args.seed)
    server = PolicyServer(served, key)
    listening = await server.open(args.host, args.port)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        print_line(json.dumps({"host": args.host, "port": listening.sockets[0].getsockname()[1]}), sys.stdout)
        print_line(f"edge-serve: {bundle.manifest.family} for {arm.name}; Ctrl-C ends it", sys.stderr)
        health = Health(os.environ.get("NOTIFY_SOCKET", ""))
        while not stopped.is_set():
            health.alive(f"serves {bundle.manifest.family} for {arm.name}", time.monotonic_ns())
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stopped.wait(), HEALTH_S)
        health.stopping("stopped")
    finally:
        listening.close()
        await listening.wait_closed()
        server.close()


def _key(file: Path | None) -> str | None:
    """Raises `InputError`."""
    if file is None:
        return None
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"--key-file {file}: cannot be read ({error})") from None
    if not 8 <= len(key) <= MOST_KEY or not key.isprintable():
        raise InputError(f"--key-file {file}: a key is 8 to {MOST_KEY} printable characters")
    return key


if __name__ == "__main__":
    sys.exit(main())
