"""Stage 2, training (extra `train`): families, the loop, checkpoints, runs, and random bits in torch."""

from aigc_sdk.training.eager import EagerGenerator
from aigc_sdk.training.family import (
    Batch,
    Carry,
    Family,
    FamilyConfig,
    ImageFamilyConfig,
    Losses,
    MusicFamilyConfig,
    Size,
    TextFamilyConfig,
    split_at_commas,
)
from aigc_sdk.training.loop import train
from aigc_sdk.training.plan import Plan, plan
from aigc_sdk.training.random import Stream
from aigc_sdk.training.run import Run, export

__all__ = [
    "Batch",
    "Carry",
    "EagerGenerator",
    "Family",
    "FamilyConfig",
    "ImageFamilyConfig",
    "Losses",
    "MusicFamilyConfig",
    "Plan",
    "Run",
    "Size",
    "Stream",
    "TextFamilyConfig",
    "export",
    "plan",
    "split_at_commas",
    "train",
]
