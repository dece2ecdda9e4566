"""`python -m lab.prior` is `edge-bench prior`."""

from __future__ import annotations

import sys

from bench.cli import main

if __name__ == "__main__":  # a worker process imports this module again
    sys.exit(main(["prior", *sys.argv[1:]]))
