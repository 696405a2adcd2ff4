"""Texts: Unicode code points, int32 (length,)."""

import html
import os
from pathlib import Path
from typing import ClassVar

from aigc_sdk.codes import decode
from aigc_sdk.contents import Item
from aigc_sdk.errors import InvalidRequest, shown
from aigc_sdk.files import as_path

# What a `repr` shows of a longer text.
_SHOWN = 60


class Text(Item):
    """One generated text; `str` gives it.

    Raises:
        GenerationFailed: of `str`, when a number is no code point of a character.

    """

    __slots__ = ()

    suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    def __str__(self) -> str:
        return decode(self.data)

    def __repr__(self) -> str:
        text = str(self)
        return f"<Text {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'!r}>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the text in UTF-8, and its provenance as PATH.json.

        Raises:
            InvalidRequest: the suffix is not .txt.
            StorageError: the file cannot be written.
        """
        target = as_path(path, "path")
        if target.suffix.lower() not in self.suffixes:
            raise InvalidRequest(f"Cannot save a text as {shown(target.name)}; use {', '.join(self.suffixes)}.")
        data = str(self).encode()
        with self.with_sidecar(target) as temporary:
            temporary.write_bytes(data)
        return target

    def _repr_html_(self) -> str:
        """Show the text in a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"
