"""What comes out of a model: an item with its seed and provenance, and `Contents`, the batch."""

from aigc_sdk.contents.base import PROVENANCE_KEY, Contents, Item, Origin, check_whole
from aigc_sdk.moved import moved

__all__ = ["PROVENANCE_KEY", "Contents", "Item", "Origin", "check_whole"]

__getattr__ = moved(
    __name__,
    Image="aigc_image.item",
    Music="aigc_music.item",
    Text="aigc_text.item",
    read_pixels="aigc_image.pixels",
)
