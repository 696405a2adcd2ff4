"""Moved to aigc_music.item."""

from aigc_sdk.moved import moved

__getattr__ = moved(__name__, "aigc_music.item")
