"""Images that were made: how one is saved and shown, and many side by side."""

import base64
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from aigc_sdk.contents import PROVENANCE_KEY, Contents, Item, check_whole
from aigc_sdk.errors import InvalidRequest, shown
from aigc_sdk.exhibits import Exhibit
from aigc_sdk.files import as_path, atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

# Suffix -> Pillow's format name, and which of them carry no alpha channel.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_WITHOUT_ALPHA = {"JPEG", "BMP"}

# Pixels of the longer side that a notebook shows at least; of each of several.
_SHOWN_SIDE, _SIDE_OF_MANY = 112, 56

# A grid may have so many columns, even if there are fewer items.
_FEWEST_COLUMNS = 64


class ImageContents(Contents):
    """Images, which can be shown side by side."""

    def grid(self, columns: int | None = None) -> "PilImage":
        """Return all images side by side as one PIL image, row by row.

        Args:
            columns: images in a row, at most as many as there are, or 64 of fewer; without it, as square as can be.

        Raises:
            InvalidRequest: there are none, they are not of one size, or columns is not possible.
        """
        if columns is not None:  # of more, most of the sheet would be empty, and it might not fit in memory
            check_whole("columns", columns, 1, max(len(self), _FEWEST_COLUMNS))
        images = cast(Sequence[Image], self)
        if len({image.data.shape for image in images}) != 1:
            raise InvalidRequest(f"{self!r} has no grid; only images of one size have one.")
        return paste_grid([image.to_pil() for image in images], columns)

    def overview(self) -> Exhibit | None:
        """Return the grid, or None where there is none."""
        if len({image.data.shape for image in self}) != 1:
            return None
        return Exhibit("image/png", png_bytes(self.grid()), f"{len(self)} images")

    def _repr_html_(self) -> str | None:
        some = self[: Image.shown]
        if len({image.data.shape for image in some}) != 1:
            return None
        sheet = png_bytes(paste_grid([scaled(image.to_pil(), _SIDE_OF_MANY) for image in some]))
        source = f"data:image/png;base64,{base64.b64encode(sheet).decode()}"
        return f'<img alt="generated images" src="{source}"><br>{self._counted(len(some))}'


class Image(Item):
    """One generated image.

    Example:
        >>> import aigc_sdk as sdk
        >>> image = sdk.generate("digits-vae", seed=7, label=4)[0]
        >>> image.data.shape, image.data.dtype.name, image.to_pil().size
        ((28, 28, 1), 'uint8', (28, 28))
    """

    __slots__ = ()

    suffixes: ClassVar[tuple[str, ...]] = tuple(FORMATS)
    contents: ClassVar[type[Contents]] = ImageContents

    def to_pil(self) -> "PilImage":
        """Return a PIL image of mode L, RGB or RGBA."""
        import PIL.Image

        return PIL.Image.fromarray(self.data[:, :, 0] if self.data.shape[2] == 1 else self.data)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the image; PNG carries its provenance inside, other formats get it as PATH.json.

        Raises:
            InvalidRequest: the suffix is not one of FORMATS, or the format has no place for alpha.
            StorageError: the file cannot be written.
        """
        from PIL.PngImagePlugin import PngInfo

        target = as_path(path, "path")
        kind = FORMATS.get(target.suffix.lower())
        if kind is None:
            raise InvalidRequest(f"Cannot save an image as {shown(target.name)}; use one of {', '.join(FORMATS)}.")
        self._check_alpha(kind)
        options = {}
        if kind == "PNG":
            options["pnginfo"] = info = PngInfo()
            info.add_itxt(PROVENANCE_KEY, self.provenance_json())
        with atomic_write(target) if kind == "PNG" else self.with_sidecar(target) as temporary:
            self.to_pil().save(temporary, kind, **options)
        return target

    def as_saved(self, kind: str) -> "PilImage":
        """Return what a file of Pillow's format `kind` gives back; some change the mode, JPEG and WebP the pixels."""
        import PIL.Image

        self._check_alpha(kind)
        buffer = io.BytesIO()
        self.to_pil().save(buffer, kind)
        return PIL.Image.open(buffer)

    def _check_alpha(self, kind: str) -> None:
        if kind in _WITHOUT_ALPHA and self.data.shape[2] == 4:
            raise InvalidRequest(f"{kind} has no alpha channel; save as .png, .webp or .tif instead.")

    def _repr_png_(self) -> bytes:
        """Show the image in a notebook, a small one enlarged."""
        return png_bytes(scaled(self.to_pil(), max(_SHOWN_SIDE, *self.data.shape[:2])))


def png_bytes(image: "PilImage") -> bytes:
    """Return a PIL image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def scaled(image: "PilImage", side: int) -> "PilImage":
    """Return the image at most `side` pixels long: a smaller one with its pixels as squares, a larger one shrunk."""
    import PIL.Image

    if factor := side // max(image.size):
        return image.resize((image.width * factor, image.height * factor), PIL.Image.Resampling.NEAREST)
    image.thumbnail((side, side))
    return image


def paste_grid(images: "list[PilImage]", columns: int | None = None, gap: int = 2) -> "PilImage":
    """Return the images, all of one size, side by side on white, `gap` pixels apart."""
    import PIL.Image

    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    mode = images[0].mode
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    sheet = PIL.Image.new(mode, size, 255 if mode == "L" else (255,) * len(mode))
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet
