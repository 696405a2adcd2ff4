"""Texts as a family learns from them."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from aigc_sdk.modality import ModalityTraining
from aigc_sdk.training.batches import padded
from aigc_sdk.training.family import Batch, FamilyConfig
from aigc_text.data import TextDataset


class TextFamilyConfig(FamilyConfig):
    """The options that every family of texts has."""

    documents: Literal["file", "paragraph", "line"] = Field(
        "file",
        description="what is one text of a .txt file; where one is longer than 5,000 characters, all are a stream",
    )


class TextTraining(ModalityTraining):
    """Batches of "codes", int32 (n, t), -1 after the end of each text."""

    unit = "texts"

    def batch(
        self, data: TextDataset, rows: NDArray[np.int64], device: torch.device, options: Any, *, varied: bool
    ) -> Batch:
        """Return the characters."""
        return {"codes": torch.from_numpy(padded([data.row_codes(row) for row in rows.tolist()])).to(device)}

    def weight(self, batch: Mapping[str, Any]) -> int:
        """Return how many characters there are."""
        return int((batch["codes"] >= 0).sum())
