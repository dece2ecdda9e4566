"""The error of everything that reads training data."""

from __future__ import annotations

from firmware_bridge.reading import OneLine


class DatasetError(OneLine):
    """A dataset that cannot be trained on; the message names the file, and the row where there is one."""
