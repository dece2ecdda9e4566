"""The pictures of a dataset, cropped and scaled to what the policy sees.

As on the robot, a picture is cropped around its centre to the policy's aspect and averaged over areas; nothing is
stretched. A video is decoded once, from its beginning: frames are kept where a wanted row lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.training.lerobot.errors import DatasetError
from export.training.lerobot.info import MOST_FRAMES, DatasetInfo
from export.training.lerobot.rows import Rows, read_parquet
from firmware_bridge.reading import is_lfs_pointer, told

Frames = NDArray[np.uint8]
MOST_PIXELS = 1 << 25
"""Of a picture; the largest cameras have half of it."""


def read_frames(
    info: DatasetInfo, rows: Rows, camera: str, wanted: NDArray[np.int64], size_px: tuple[int, int]
) -> Frames:
    """The frames of `camera` at the `wanted` rows, which ascend: uint8 (wanted, height, width, 3).

    Raises `DatasetError` with the file, and the row or the number of the frame.
    """
    feature = info.feature(camera, "the mapping")
    out = np.empty((len(wanted), *size_px, 3), dtype=np.uint8)
    with tqdm(total=len(wanted), desc=camera, unit="frame", mininterval=1.0, disable=None) as bar:
        if feature.dtype == "video":
            _from_videos(info, rows, camera, wanted, out, bar)
        elif feature.dtype == "image":
            _from_images(rows, camera, wanted, out, bar)
        else:
            raise DatasetError(f"{info.file}: '{camera}' is {feature.dtype}, not a video or an image")
    return out


def _from_videos(info: DatasetInfo, rows: Rows, camera: str, wanted: NDArray[np.int64], out: Frames, bar: Any) -> None:
    place = _video_frames(info, rows, camera)
    for path, picture_of_row in place.items():
        inside = np.isin(wanted, picture_of_row[0], assume_unique=True)
        targets = np.flatnonzero(inside)
        pictures = picture_of_row[1][np.searchsorted(picture_of_row[0], wanted[inside])]
        for target, picture in zip(targets, _decoded(path, pictures, info.fps)):
            out[target] = scaled(picture, (out.shape[1], out.shape[2]), path)
            bar.update()


def _video_frames(
    info: DatasetInfo, rows: Rows, camera: str
) -> dict[Path, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For every video file, the rows it holds, and which of its pictures each row is."""
    found: dict[Path, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    first = 0
    for episode in rows.described:
        try:
            chunk, file = episode[f"videos/{camera}/chunk_index"], episode[f"videos/{camera}/file_index"]
            begin = round(float(episode[f"videos/{camera}/from_timestamp"]) * info.fps)
            if not 0 <= begin <= MOST_FRAMES:
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DatasetError(
                f"{info.folder}/meta/episodes: says of episode {episode['episode_index']} not where the video of "
                f"{camera} is"
            ) from None
        path = info.video_file(camera, chunk, file)
        steps = np.arange(episode["length"])
        found.setdefault(path, []).append((first + steps, begin + steps))
        first += episode["length"]
    return {
        path: (np.concatenate([row for row, _ in parts]), np.concatenate([picture for _, picture in parts]))
        for path, parts in found.items()
    }


def _decoded(path: Path, pictures: NDArray[np.int64], fps: float) -> Iterator[av.VideoFrame]:
    """The pictures with these numbers, ascending; a number is presentation time times fps."""
    if not path.is_file():
        raise DatasetError(f"{path}: missing; copy the whole dataset again")
    if is_lfs_pointer(path):
        raise DatasetError(f"{path}: is a pointer of Git LFS, not the video itself: fetch it with git lfs pull")
    number, position = -1, 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.width * stream.height > MOST_PIXELS:
                raise DatasetError(f"{path}: pictures of {stream.width}x{stream.height} are larger than any camera's")
            rate = float(stream.average_rate or 0)
            if abs(rate - fps) > 0.01 * fps:
                raise DatasetError(f"{path}: has {rate:g} frames per second, info.json says {fps:g}")
            for frame in container.decode(stream):
                number = round(frame.time * fps)
                if frame.is_corrupt:
                    raise DatasetError(f"{path}: frame {number} is damaged; copy the file again")
                while position < len(pictures) and pictures[position] == number:
                    position += 1
                    yield frame
                if position == len(pictures):
                    return
                if number > pictures[position]:
                    raise DatasetError(f"{path}: has no frame {pictures[position]}, only ones around it")
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(
            f"{path}: cannot be decoded after frame {number}, it is cut short or damaged ({told(error)}); copy it again"
        ) from None
    raise DatasetError(
        f"{path}: ends at frame {number}, and frame {pictures[position]} is wanted; it is cut short, copy it again"
    )


def _from_images(rows: Rows, camera: str, wanted: NDArray[np.int64], out: Frames, bar: Any) -> None:
    ends = [first for _, first in rows.files[1:]] + [len(rows.episode)]
    for (path, first), end in zip(rows.files, ends):
        table = read_parquet(path, columns=[camera])
        if camera not in table.column_names:
            raise DatasetError(f"{path}: no column '{camera}'")
        column = table.column(camera)
        for target in np.flatnonzero((wanted >= first) & (wanted < end)):
            row = int(wanted[target])
            picture = column[row - first].as_py()
            out[target] = scaled(_picture(picture and picture.get("bytes"), rows.place(row)), out.shape[1:3], path)
            bar.update()


def _picture(data: bytes | None, place: str) -> av.VideoFrame:
    """One PNG or JPEG."""
    if not data:
        raise DatasetError(f"{place}: the image is empty")
    decoder: Any = av.CodecContext.create("png" if data.startswith(b"\x89PNG") else "mjpeg", "r")
    decoder.options = {
        "err_detect": "explode",
        "max_pixels": str(MOST_PIXELS),
    }  # a damaged one is an error, not a picture that is partly grey
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.FFmpegError as error:
        raise DatasetError(f"{place}: the image cannot be decoded ({told(error)})") from None
    if not frames:
        raise DatasetError(f"{place}: the image cannot be decoded")
    frame: av.VideoFrame = frames[0]
    return frame


def scaled(frame: av.VideoFrame, size_px: tuple[int, ...], path: Path) -> Frames:
    """A picture cropped around its centre to the aspect of `size_px` (height, width), then averaged down to it."""
    height, width = size_px
    if (frame.height, frame.width) == (height, width):
        return np.asarray(frame.to_ndarray(format="rgb24"))
    crop_height = min(frame.height, round(frame.width * height / width))
    crop_width = min(frame.width, round(frame.height * width / height))
    if crop_height < height or crop_width < width:
        raise DatasetError(
            f"{path}: pictures of {frame.width}x{frame.height} are too small for a policy that sees {width}x{height}"
        )
    top, left = (frame.height - crop_height) // 2, (frame.width - crop_width) // 2
    pixels = frame.to_ndarray(format="rgb24")[top : top + crop_height, left : left + crop_width]
    if crop_height % height == 0 and crop_width % width == 0:
        blocks = pixels.reshape(height, crop_height // height, width, crop_width // width, 3)
        return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    cropped = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return np.asarray(cropped.reformat(width=width, height=height, interpolation="AREA").to_ndarray(format="rgb24"))
