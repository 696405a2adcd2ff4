"""Images as a family learns from them."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from aigc_image.dataset import ImageDataset
from aigc_sdk.card import Control
from aigc_sdk.modality import ModalityTraining
from aigc_sdk.training.family import Batch, FamilyConfig, split_at_commas

Rows = NDArray[np.int64]

# An image is shifted by at most this part of its side.
_SHIFT = 1 / 8


class ImageFamilyConfig(FamilyConfig):
    """The options that every family of images has."""

    image_size: int | tuple[int, int] | None = Field(
        None, description="pixels a side, or [height, width], to bring images to; if left out, all must be of one size"
    )
    image_fit: Literal["crop", "pad", "stretch"] = Field(
        "crop", description="how an image of another aspect gets there"
    )
    image_mode: Literal["auto", "grey", "rgb", "rgba"] = Field(
        "auto", description="channels; auto takes the most that any image needs"
    )
    workers: int | None = Field(
        None, ge=0, le=64, description="processes that decode images; one for each core if left out, 0 for none"
    )
    augment: tuple[Literal["flip", "shift"], ...] = Field(
        (), description="vary images: flip mirrors every second one, shift moves them by up to an eighth of a side"
    )

    _split = field_validator("augment", mode="before")(split_at_commas)


class ImageTraining(ModalityTraining):
    """Batches of "images", float32 (n, channels, height, width), 0 to 1."""

    unit = "images"

    def batch(self, data: ImageDataset, rows: Rows, device: torch.device, options: Any, *, varied: bool) -> Batch:
        """Return the images, mirrored and shifted as `augment` of the options says."""
        pixels = torch.from_numpy(data.pixels(rows)).to(device)
        if varied and (augment := getattr(options, "augment", ())):
            pixels = vary(pixels, augment)
        pixels = pixels.permute(0, 3, 1, 2)
        # Into a new tensor, because to the convolutions a single channel at the end looks like channels last.
        return {"images": torch.empty(pixels.shape, device=device).copy_(pixels).div_(255)}

    def fed(self, control: Control, data: Any, rows: Rows) -> list[NDArray[np.uint8]] | None:
        """Return the images of these rows, in the size that the control takes."""
        if control.kind != "image":
            return None
        pixels = data.pixels(rows)
        if pixels.shape[3] != control.shape[2]:
            raise ValueError(f"{control.name} takes {control.shape[2]} channels, and the data has {pixels.shape[3]}")
        return [_resized(image, control) for image in pixels]


def vary(pixels: torch.Tensor, augment: tuple[str, ...]) -> torch.Tensor:
    """Return images (n, height, width, channels), each mirrored or not, and shifted by up to an eighth of its side.

    What a shift uncovers is filled by repeating the edge. The random numbers are drawn on the CPU, so that they
    are the same on every device.
    """
    n, height, width, _ = pixels.shape
    y, x = torch.arange(height).expand(n, height), torch.arange(width).expand(n, width)
    if "shift" in augment:
        y, x = (_shifted(place) for place in (y, x))
    if "flip" in augment:
        x = torch.where(torch.rand(n, 1) < 0.5, width - 1 - x, x)
    y, x, item = y.to(pixels.device), x.to(pixels.device), torch.arange(n, device=pixels.device)
    return pixels[item[:, None, None], y[:, :, None], x[:, None, :]]


def _shifted(places: torch.Tensor) -> torch.Tensor:
    """Return the places (n, side) that each item's pixels are taken from."""
    n, side = places.shape
    most = max(1, round(side * _SHIFT))
    return (places + torch.randint(-most, most + 1, (n, 1))).clamp(0, side - 1)


def _resized(image: NDArray[np.uint8], control: Control) -> NDArray[np.uint8]:
    """Return an image (height, width, channels) in the size of a control, each pixel the mean of what it covers."""
    import PIL.Image

    height, width, _ = control.shape
    if image.shape == control.shape:
        return image
    planes: list[Any] = [
        np.asarray(PIL.Image.fromarray(plane).resize((width, height), PIL.Image.Resampling.BOX))
        for plane in np.moveaxis(image, 2, 0)
    ]
    return np.stack(planes, 2)
