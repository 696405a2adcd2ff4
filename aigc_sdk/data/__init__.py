"""Stage 1, data: readers, the data set in memory, its fingerprint and its split."""

from aigc_sdk.data.dataset import Dataset, DataSpec
from aigc_sdk.data.readers import load_data

__all__ = ["DataSpec", "Dataset", "load_data"]
