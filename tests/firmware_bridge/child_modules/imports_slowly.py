"""A child whose imports take long, as those of an engine do: they hold the interpreter's lock."""

import ctypes

ctypes.PyDLL(None).sleep(30)  # PyDLL keeps the lock


def main() -> None:
    """Never reached."""
