"""Writes recorded episodes as a LeRobot v3 dataset; needs pyarrow and PyAV (`pip install 'vla-edge[data]'`).

Nothing here imports torch or mujoco: a robot records with it, and so do simulators in environments of their own.
"""

from edge.log.dataset.spec import Camera, Column, DatasetSpec, DatasetWriteError, Flag, Vector
from edge.log.dataset.writer import DatasetWriter

__all__ = ["Camera", "Column", "DatasetSpec", "DatasetWriteError", "DatasetWriter", "Flag", "Vector"]
