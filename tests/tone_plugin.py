"""A kind of content from outside: tones, int16 (samples,), with a sample rate and how loud each is."""

import wave
from pathlib import Path
from typing import ClassVar

import numpy as np

import aigc_sdk as sdk
from aigc_sdk.contents import Item
from aigc_sdk.files import as_path
from aigc_sdk.kinds import NumberKind
from aigc_sdk.likeness import IDENTICAL
from aigc_sdk.modality import Modality, ModalityReproduction


@sdk.hookimpl
def aigc_register_modalities(register):
    register(sdk.ModalitySpec(name="tone", target="tone_plugin:Tones", kinds=("pitch",), api_version=1))


@sdk.hookimpl
def aigc_register_families(register):
    register(sdk.FamilySpec(name="means", target="tone_training:Means", modalities=("tone",)))


class Tone(Item):
    __slots__ = ()

    suffixes = (".wav",)

    def save(self, path):
        target = as_path(path, "path")
        with self.with_sidecar(target) as temporary, wave.open(str(temporary), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.card.output.attributes["sample_rate"])
            file.writeframes(self.data.astype("<i2").tobytes())
        return target


class PitchKind(NumberKind):
    """Semitones above a."""

    name = "pitch"

    def allowed(self, control):
        return "semitones above a, from 0 to 12"

    def bounds(self, control):
        return 0, 12


class ToneReproduction(ModalityReproduction):
    def compare(self, path: Path, made: Item) -> str:
        with wave.open(str(path)) as file:
            found = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.array_equal(found, made.data)
        return IDENTICAL


class Tones(Modality):
    name, plural, item = "tone", "tones", Tone
    facets: ClassVar[dict[str, str]] = {
        "data": "tone_training:ToneData",
        "training": "tone_training:ToneTraining",
        "reproduction": "tone_plugin:ToneReproduction",
    }

    @property
    def kinds(self):
        return (PitchKind,)

    def check_output(self, output):
        if output.dtype != "int16" or len(output.shape) != 1 or "sample_rate" not in output.attributes:
            raise ValueError(f"{output}; a tone is int16 (samples,) with a sample_rate")

    def check_values(self, output, parts):
        if (parts["loudness"] == 0).any():
            raise ValueError("a loudness of 0")
