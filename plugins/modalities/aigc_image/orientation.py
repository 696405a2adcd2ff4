"""How an image lies: what a camera or a program wrote down about it, and the image turned upright by it.

It may be said in EXIF or in XMP. In a PNG these may stand behind the pixels; they are found there without decoding
them, so that what is known of an image from its header is what decoding it makes.
"""

import io
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_TAG = 0x0112  # of EXIF and TIFF
_WIDTH, _HEIGHT = 256, 257  # of TIFF
_TEXT_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_MOST_BYTES = 2**22  # of such chunks

# The values of the tag that say something else than upright, by what turns the image upright.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def orientation(image: "PilImage") -> int:
    """Return how an image lies, 1 (upright) to 8 as EXIF counts; what cannot be read says nothing."""
    try:
        found = (_without_pixels(image) if image.format == "PNG" else image).getexif().get(_TAG, 1)
    except (OSError, ValueError, TypeError, SyntaxError, LookupError, struct.error, zlib.error):
        return 1
    return found if found in _TURNS else 1


def upright(image: "PilImage", lies: int) -> "PilImage":
    """Return an image that lies so as it is to be seen."""
    from PIL.Image import Transpose

    return image.transpose(Transpose[_TURNS[lies]]) if lies in _TURNS else image


def upright_size(image: "PilImage") -> tuple[int, int]:
    """Return (height, width) of an image that need not be loaded, once it is upright."""
    width, height = image.size
    if orientation(image) < 5:
        return height, width
    if image.format == "TIFF":  # of which Pillow may have exchanged them already
        tags: Any = image.tag_v2  # type: ignore[attr-defined]  # a TIFF has them
        width, height = tags[_WIDTH], tags[_HEIGHT]
    return width, height


def _without_pixels(image: "PilImage") -> "PilImage":
    """Return a tiny image that has all that a PNG says beside its pixels."""
    import PIL.Image

    stand_in = PIL.Image.new("1", (1, 1))
    stand_in.info = dict(image.info)
    file = getattr(image, "fp", None)
    if getattr(image, "tile", None) and file is not None and (chunks := _chunks_behind_pixels(file)):
        header, pixels = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), zlib.compress(bytes(2))
        tiny = b"\x89PNG\r\n\x1a\n" + header + chunks + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
        with PIL.Image.open(io.BytesIO(tiny)) as opened:
            stand_in.info |= opened.info
    return stand_in


def _chunks_behind_pixels(file: BinaryIO) -> bytes:
    """Return the chunks of a PNG behind its first pixels that may say how it lies; leaves the file where it was."""
    place, found, is_behind = file.tell(), b"", False
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        is_behind = is_behind or kind == b"IDAT"
        if is_behind and kind in _TEXT_CHUNKS and len(found) + size <= _MOST_BYTES:
            found += head + file.read(size + 4)
        elif kind == b"IEND":
            break
        else:
            file.seek(size + 4, os.SEEK_CUR)
    file.seek(place)
    return found


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
