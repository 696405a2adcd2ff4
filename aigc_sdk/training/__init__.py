"""Stage 2, training (extra `train`): families, the loop, checkpoints, runs, and random bits in torch."""

from aigc_sdk.moved import moved
from aigc_sdk.training.eager import EagerGenerator
from aigc_sdk.training.family import (
    Batch,
    Carry,
    Family,
    FamilyConfig,
    Losses,
    Size,
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
    "Losses",
    "Plan",
    "Run",
    "Size",
    "Stream",
    "export",
    "plan",
    "split_at_commas",
    "train",
]

__getattr__ = moved(
    __name__,
    ImageFamilyConfig="aigc_image.training",
    MusicFamilyConfig="aigc_music.training",
    TextFamilyConfig="aigc_text.training",
)
