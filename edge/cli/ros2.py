"""`edge-ros2`: an arm as a ROS 2 node over zenoh, behind the firmware's limits. ROS need not be installed."""

from __future__ import annotations

import argparse
import sys

from edge.arms import available_arms
from edge.arms.bridge import bridge_forms
from edge.cli.parser import add_version, complain, described
from edge.errors import InputError, VlaEdgeError
from edge.registry import missing
from edge.run.display import Display
from edge.run.front import connect
from firmware_bridge.errors import BridgeError
from firmware_bridge.printing import print_line

STEP_S, HORIZON, EXECUTE_STEPS = 0.04, 25, 3
"""A trajectory is sent a second ahead, and begins within about 0.2 s."""
DAY_S = 86_399.0


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-ros2",
        **described(
            "Makes an arm a ROS 2 node over zenoh (rmw_zenoh): joint_states and diagnostics out, joint_trajectory and "
            "stop in. Every trajectory is checked whole, and executed within the firmware's limits.",
            """
            edge-ros2 --arm so101 --bridge feetech:/dev/ttyACM0
            edge-ros2 --arm franka --bridge sim: --domain 3 --namespace /left
            """,
            "It needs a zenoh router that rmw_zenoh's nodes know (ros2 run rmw_zenoh_cpp rmw_zenohd) and runs until "
            "Ctrl-C or a message on stop. Exit codes: 0 ended in order, 1 safety stop, 2 bad input.",
        ),
    )
    add_version(root)
    add = root.add_argument
    add("--arm", required=True, metavar="NAME", help=f"arm profile: {', '.join(available_arms())}, or a .toml file")
    add("--bridge", default="sim:", metavar="URL", help=f"the arm (default sim:, simulated): {bridge_forms()}")
    add("--node", default="vla_edge", metavar="NAME", help="name of the node (default %(default)s)")
    add("--namespace", default="/", metavar="NS", help="before its topics, as /left (default none)")
    add("--domain", type=int, default=0, metavar="N", help="ROS_DOMAIN_ID (default %(default)d)")
    add("--distro", default="jazzy", metavar="NAME", help="whose message definitions (default %(default)s)")
    add("--router", default="tcp/localhost:7447", metavar="ENDPOINT", help="zenoh router (default %(default)s)")
    add("--listen", default="tcp/127.0.0.1:0", metavar="ENDPOINT", help="for other peers (default %(default)s)")
    add("--duration", type=float, default=DAY_S, metavar="S", help="seconds to run (default a day)")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return _run(args)
    except (VlaEdgeError, BridgeError) as error:
        complain("edge-ros2", error)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except KeyboardInterrupt:
        complain("edge-ros2", "stopped before the arm was armed; it has not moved")
        return 0


def _run(args: argparse.Namespace) -> int:
    try:
        from edge.doors.ros2 import Ros2Node, Ros2Options
        from edge.doors.trajectory import TrajectoryFollower
    except ImportError as error:
        raise InputError(missing("edge-ros2", error)) from None
    follower = TrajectoryFollower(STEP_S, HORIZON)
    options = Ros2Options(args.node, args.namespace, args.domain, args.distro, args.router, args.listen)
    with connect(args.arm, args.bridge, scene_seed=None) as arm:
        node = Ros2Node(arm.profile, follower, options)
        try:
            outcome = arm.run(
                follower,
                step_s=STEP_S,
                horizon=HORIZON,
                execute_steps=EXECUTE_STEPS,
                duration_s=args.duration,
                display=Display(line=_print, page=node),
            )
        finally:
            node.close()
    _print(f"{node.accepted} trajectories accepted, {node.refused} refused; ended: {outcome.ended}")
    if outcome.error:
        complain("edge-ros2", f"safety stop: {outcome.error}")
        return 1
    return 0


def _print(text: str) -> None:
    print_line(f"edge-ros2: {text}", sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
