"""Stage 1, data: readers, cleaning with its report, the data set, its fingerprint and its split."""

from aigc_sdk.data.dataset import DataReport, Dataset, DataSpec
from aigc_sdk.data.images import ImageOptions
from aigc_sdk.data.music import MusicDataset, MusicDetails, Piece, load_music
from aigc_sdk.data.readers import load_data
from aigc_sdk.data.texts import TextDataset, TextDetails, load_texts

__all__ = [
    "DataReport",
    "DataSpec",
    "Dataset",
    "ImageOptions",
    "MusicDataset",
    "MusicDetails",
    "Piece",
    "TextDataset",
    "TextDetails",
    "load_data",
    "load_music",
    "load_texts",
]
