"""What comes out of a model: one module for each modality, and `Contents`, the batch."""

from aigc_sdk.contents.base import Contents, Item, Origin
from aigc_sdk.contents.image import Image, read_pixels
from aigc_sdk.contents.music import Music
from aigc_sdk.contents.text import Text

__all__ = ["Contents", "Image", "Item", "Music", "Origin", "Text", "read_pixels"]
