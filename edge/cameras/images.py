"""From what a camera delivers to the image a policy was trained on, and the optional package that does it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.cameras.base import CameraError
from edge.registry import missing


def opencv() -> Any:
    """The module `cv2`, quiet and with one thread. Raises `CameraError` when it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise CameraError(missing("a camera or recording", error)) from None
    cv2.setNumThreads(1)  # the other cores belong to control and to the engines
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our one line says what failed
    return cv2


def needs_opencv() -> None:
    """Raises `CameraError` when `cv2` is not installed, without loading it."""
    if find_spec("cv2") is None:
        raise CameraError(missing("a camera or recording", ModuleNotFoundError(name="cv2")))


def centre_crop(size_px: tuple[int, int], frame_px: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the largest centred part of `size_px` with the aspect of `frame_px`, both (height, width).

    Raises `CameraError` when that part is smaller than the frame: details that are not there cannot be made up.
    """
    (height, width), (rows, columns) = size_px, frame_px
    cropped_rows = min(height, width * rows // columns)
    cropped_columns = min(width, height * columns // rows)
    if cropped_rows < rows or cropped_columns < columns:
        raise CameraError(
            f"its {width}x{height} pixels are too few for the policy's {columns}x{rows}; choose a larger size"
        )
    top, left = (height - cropped_rows) // 2, (width - cropped_columns) // 2
    return slice(top, top + cropped_rows), slice(left, left + cropped_columns)


def fit(image_bgr: NDArray[np.uint8], frame_px: tuple[int, int]) -> NDArray[np.uint8]:
    """An image as OpenCV has it, uint8 (height, width, 3) BGR, as the policy sees it: uint8 (*frame_px, 3) RGB.

    Cropped around its centre to the policy's aspect, then averaged over areas, so nothing is distorted or aliased.
    Raises `CameraError` when it is too small.
    """
    if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8:
        raise CameraError(f"its images are {image_bgr.dtype} {image_bgr.shape}, not 8-bit colour; choose fourcc=MJPG")
    rows, columns = centre_crop((image_bgr.shape[0], image_bgr.shape[1]), frame_px)
    cropped = image_bgr[rows, columns]
    if cropped.shape[:2] != frame_px:
        cv2 = opencv()
        cropped = cv2.resize(cropped, (frame_px[1], frame_px[0]), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(cropped[..., ::-1])


def fit_text(size_px: tuple[int, int], frame_px: tuple[int, int]) -> str:
    """What `fit` does to an image of `size_px`, in words. Raises `CameraError` when it is too small."""
    rows, columns = centre_crop(size_px, frame_px)
    cropped = f"{columns.stop - columns.start}x{rows.stop - rows.start}"
    return f"{size_px[1]}x{size_px[0]} px, centre {cropped}, to {frame_px[1]}x{frame_px[0]}"
