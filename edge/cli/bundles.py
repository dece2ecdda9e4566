"""`edge-bundle`: bundles by version in a folder; which one is in use, and the one before again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge.bundle.store import CURRENT, BundleStore
from edge.cli.parser import TRUST, add_version, complain, described
from edge.errors import VlaEdgeError
from firmware_bridge.printing import print_line


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-bundle",
        **described(
            "Keeps bundles by version: each is a folder in a store, and a link there, `current`, names the one in use.",
            """
            edge-bundle list --store /var/lib/vla-edge/bundles
            edge-bundle use lift-3 --store /var/lib/vla-edge/bundles       # compares every file with its hash first
            edge-bundle rollback --store /var/lib/vla-edge/bundles
            edge-run --arm so101 --bundle /var/lib/vla-edge/bundles/current
            """,
            "A run follows the link when it begins. Exit codes: 0 done, 2 bad input; then nothing has changed.",
        ),
    )
    add_version(root)
    commands = root.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what there is, and what is in use")
    using = commands.add_parser("use", help="put a bundle in use, once its files have their hashes")
    using.add_argument("name", help="of its folder in the store")
    back = commands.add_parser("rollback", help="put the one that was in use before in use again")
    for one in (using, back):
        one.add_argument("--trust", type=Path, metavar="KEY", help=TRUST)
    for one in (listing, using, back):
        one.add_argument("--store", type=Path, default=Path("bundles"), metavar="DIR", help="default: %(default)s")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        store = BundleStore(args.store)
        if args.command == "list":
            _list(store)
        elif args.command == "use":
            store.use(args.name, args.trust)
            _print(f"{store.folder / CURRENT} is {args.name} from the next run on")
        else:
            _print(f"{store.folder / CURRENT} is {store.rollback(args.trust)} again, from the next run on")
    except VlaEdgeError as error:
        complain("edge-bundle", error)
        return error.exit_code
    except OSError as error:
        complain("edge-bundle", f"{args.store}: {error.strerror}; nothing has changed")
        return 2
    return 0


def _list(store: BundleStore) -> None:
    found = store.all()
    for one in found:
        what = one.problem
        if one.manifest is not None:
            arms = ", ".join(arm.name for arm in one.manifest.arms)
            what = f"{one.manifest.family} for {arms}, {one.manifest.precision}, {one.manifest.checkpoint_sha256[:12]}"
        _print(f"{'*' if one.in_use else ' '} {one.name:<20} {what}")
    if not found:
        _print(f"{store.folder}: no bundles")


def _print(text: str) -> None:
    print_line(text, sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
