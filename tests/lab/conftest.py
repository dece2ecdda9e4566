"""Experiments set how many threads torch may use, as measurements do."""

from tests.bench.conftest import torch_keeps_its_threads  # noqa: F401
