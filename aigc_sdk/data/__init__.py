"""Stage 1, data: what the readers of all kinds of content share; and the split into train, validation and test."""

from aigc_sdk.data.dataset import DataReport, DataSpec, Rejected, Sequences, frequencies_of, split_by_digest
from aigc_sdk.moved import moved

__all__ = ["DataReport", "DataSpec", "Rejected", "Sequences", "frequencies_of", "split_by_digest"]

__getattr__ = moved(
    __name__,
    Dataset="aigc_image.dataset:ImageDataset",
    ImageOptions="aigc_image.images",
    MusicDataset="aigc_music.data",
    Piece="aigc_music.data",
    TextDataset="aigc_text.data",
    load_data="aigc_image.data",
    load_music="aigc_music.data",
    load_texts="aigc_text.data",
)
