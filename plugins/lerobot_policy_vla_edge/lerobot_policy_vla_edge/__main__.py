"""Writes the folder of a `--policy.path`: `python -m lerobot_policy_vla_edge --bundle DIR --arm so101 -o FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge.errors import InputError, VlaEdgeError
from lerobot_policy_vla_edge.configuration_vla_edge import VlaEdgeConfig
from lerobot_policy_vla_edge.processor_vla_edge import make_vla_edge_pre_post_processors


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lerobot_policy_vla_edge", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="folder made by edge-export")
    parser.add_argument("--arm", default="so101", metavar="NAME", help="the arm that it moves (default %(default)s)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="must not be there yet")
    args = parser.parse_args()
    try:
        config = VlaEdgeConfig.of(str(args.bundle.resolve()), args.arm)
        try:
            args.out.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"-o {args.out}: {error.strerror}; name another folder") from None
    except VlaEdgeError as error:
        print(f"lerobot_policy_vla_edge: {error}", file=sys.stderr)
        return error.exit_code
    config.save_pretrained(args.out)
    for pipeline in make_vla_edge_pre_post_processors(config):
        pipeline.save_pretrained(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
