"""Reads LeRobot v3 datasets: what info.json promises, the rows, and the frames of videos and image columns."""

from export.training.lerobot.errors import DatasetError
from export.training.lerobot.frames import read_frames
from export.training.lerobot.info import DatasetInfo, Feature, read_info
from export.training.lerobot.rows import Rows, read_rows

__all__ = ["DatasetError", "DatasetInfo", "Feature", "Rows", "read_frames", "read_info", "read_rows"]
