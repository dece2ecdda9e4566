"""From a camera's raw frame to the pixels of a vision tower."""

from __future__ import annotations

import torch
from torch import nn

from export.families.lerobot.pictures import Pictures
from export.families.lerobot.statistics import Affine


class Frames(nn.Module):
    """Raw frames of one camera, resized without distortion and padded with black, as pixels from -1 to 1."""

    def __init__(self, affine: Affine, frame_px: tuple[int, int], image_px: tuple[int, int], centred: bool) -> None:
        """Sizes are (height, width). Padding is around the image, or above and to the left of it.

        affine  the folder's own step between 0..1 and the resize, most often nothing
        """
        super().__init__()
        self.read, self.centred, self.size = Pictures(affine), centred, frame_px
        (height, width), (into_height, into_width) = frame_px, image_px
        ratio = max(width / into_width, height / into_height)
        self.resized = frame_px
        self.padding = (0, 0, 0, 0)
        if frame_px != image_px:
            self.resized = (int(height / ratio), int(width / ratio))
            over_y, over_x = into_height - self.resized[0], into_width - self.resized[1]
            left, top = (over_x // 2, over_y // 2) if centred else (over_x, over_y)
            self.padding = (left, over_x - left, top, over_y - top)

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        """uint8 (height, width, 3) to (1, 3, height, width)."""
        image = self.read(frame)
        if self.resized != self.size:
            image = nn.functional.interpolate(image, self.resized, mode="bilinear", align_corners=False)
            if self.centred:
                image = image.clamp(0.0, 1.0)
        if any(self.padding):
            image = nn.functional.pad(image, self.padding)
        return image * 2.0 - 1.0
