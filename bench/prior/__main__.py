"""`python -m bench.prior` is `edge-bench prior`."""

from __future__ import annotations

import sys

from bench.cli import main

sys.exit(main(["prior", *sys.argv[1:]]))
