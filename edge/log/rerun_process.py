"""Tells a viewer of rerun's on this machine what comes over a socket. It connects to the viewer, and opens no port."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from edge.log.live import HOST
from edge.log.rerun_live import END_S, messages
from edge.log.rerun_view import RerunView, import_rerun


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.log.rerun_process", description=__doc__)
    parser.add_argument("--line", type=int, required=True, help="socket that brings the messages")
    parser.add_argument("--port", type=int, required=True, help="of the viewer, on this machine")
    args = parser.parse_args(argv)
    rerun = import_rerun("--live rerun")
    recording = rerun.RecordingStream("vla-edge")
    recording.connect_grpc(f"rerun+http://{HOST}:{args.port}/proxy")
    view = RerunView(recording)
    with socket.socket(fileno=args.line) as line, line.makefile("rb") as stream:
        for topic, data, wall_ns in messages(stream):
            view.add(topic, data, wall_ns)
    recording.flush(timeout_sec=END_S)
    os._exit(0)  # an end in order would wait for a viewer that is gone


if __name__ == "__main__":
    sys.exit(main())
