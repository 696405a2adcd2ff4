"""Comparing texts, as they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.codes import decode, encode
from aigc_sdk.exhibits import Exhibit
from aigc_sdk.modality import ModalityEvaluation
from aigc_text.item import Text

# What is shown of a longer text.
_MOST_CHARACTERS = 600


class TextEvaluation(ModalityEvaluation):
    """Texts, as `str`."""

    def items_of(self, given: Any) -> tuple[str, ...] | None:
        """Return the texts, of code points int32 (n, p) too."""
        if isinstance(given, np.ndarray):
            return tuple(map(decode, given)) if given.dtype == np.int32 and given.ndim == 2 else None
        return tuple(map(str, given)) if all(isinstance(item, str | Text) for item in given) else None

    def to_array(self, given: Any) -> NDArray[np.int32] | None:
        """Return their code points."""
        texts = self.items_of(given)
        return None if texts is None else encode(texts)

    def known(self, items: Sequence[Any], dataset: Any) -> Sequence[Any]:
        """Return the texts; the pieces of a stream are one text."""
        return ("".join(items),) if dataset.is_stream else items

    def exhibits(self, items: Sequence[Any], caption: str) -> list[Exhibit]:
        """Return the beginning of each."""
        texts = [text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} ..." for text in items]
        return [Exhibit("text/plain", text.encode("utf-8", "replace"), caption) for text in texts]
