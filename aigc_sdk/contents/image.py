"""Moved to aigc_image.item and aigc_image.pixels."""

from aigc_sdk.moved import moved

__getattr__ = moved(__name__, "aigc_image.item", "aigc_image.pixels")
