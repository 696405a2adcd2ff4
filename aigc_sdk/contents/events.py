"""Moved to aigc_music.events."""

from aigc_sdk.moved import moved

__getattr__ = moved(__name__, "aigc_music.events")
