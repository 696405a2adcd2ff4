"""Files of text: which encoding they are in, and lines that end in a line feed alone."""

import codecs
from pathlib import Path

from aigc_sdk.errors import InvalidData

# What can be read at most: as code points it takes four times as many bytes.
MOST_BYTES = 2**29

# What a file may begin with to tell its encoding; that of UTF-32 begins as that of UTF-16 does.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# Upper bytes of letters in UTF-16: 0 of Latin ones, the others of Greek, Cyrillic, Hebrew, Arabic and their like.
_UPPER = range(9)
# The third byte of a character in UTF-32 is at most this.
_MOST_PLANE = 0x10


def read_text(path: Path, otherwise: str | None = None) -> str:
    """Return a file's text, its lines ended by a line feed alone.

    It is UTF-16 or UTF-32 where its first bytes say so, or where the upper bytes of its characters do, and else UTF-8.

    Args:
        path: the file.
        otherwise: the encoding of what is not UTF-8; without it that is an error.

    Raises:
        InvalidData: it is in another encoding, or too large.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InvalidData(f"{path} has {path.stat().st_size:,} bytes; a file of texts has at most {MOST_BYTES:,}.")
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None) or _unmarked(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if otherwise and encoding == "utf-8":
            return _lines(data.decode(otherwise))
        found = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise InvalidData(
            f"{path} is no text in {encoding[:6].upper().rstrip('-')}: {found}. Convert the file."
        ) from error
    return _lines(text)


def _unmarked(data: bytes) -> str:
    """Return the encoding of a file that does not tell, by the bytes that are the upper ones of letters."""
    if b"\0" not in data:
        return "utf-8"
    if len(data) % 4 == 0:
        if not any(data[3::4]) and max(data[2::4]) <= _MOST_PLANE:
            return "utf-32-le"
        if not any(data[::4]) and max(data[1::4]) <= _MOST_PLANE:
            return "utf-32-be"
    even, odd = (sum(map(half.count, _UPPER)) for half in (data[::2], data[1::2]))
    if 4 * min(even, odd) > max(even, odd) or 8 * max(even, odd) < len(data):
        return "utf-8"
    return "utf-16-be" if even > odd else "utf-16-le"


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
