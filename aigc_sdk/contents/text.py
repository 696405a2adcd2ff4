"""Moved to aigc_text.item."""

from aigc_sdk.moved import moved

__getattr__ = moved(__name__, "aigc_text.item")
