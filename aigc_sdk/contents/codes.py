"""Moved to aigc_sdk.codes."""

from aigc_sdk.moved import moved

__getattr__ = moved(__name__, "aigc_sdk.codes")
