"""How tones are learned from: a family that makes the mean of its tones, as loud as the seed says."""

import hashlib
from functools import cached_property

import numpy as np
import torch
from torch import nn

from aigc_sdk.card import Control, OutputPart, OutputSpec
from aigc_sdk.data import DataReport, DataSpec, split_by_digest
from aigc_sdk.errors import InvalidData
from aigc_sdk.modality import ModalityData, ModalityTraining
from aigc_sdk.training import Family, FamilyConfig, Losses
from aigc_sdk.training.random import Stream, uniform


class ToneDataset:
    """Tones, int16 (n, samples)."""

    name, labels, label_names, is_stream = "tones", None, (), False

    def __init__(self, tones):
        self.tones, self.n = tones, len(tones)
        self.report = DataReport(self.n, what="tone")

    @cached_property
    def fingerprint(self):
        return hashlib.sha256(self.tones.astype("<i2").tobytes()).hexdigest()

    def split(self, validation, test):
        digests = [int.from_bytes(hashlib.sha256(tone.tobytes()).digest()[:8], "big") for tone in self.tones]
        return split_by_digest(self.name, np.array(digests, np.uint64), validation, test, "tones")

    def spec(self, train):
        return DataSpec(self.tones.shape[1:], (), (), len(train), details=float(np.abs(self.tones[train]).max()))

    def items(self, rows):
        return self.tones[rows]


class ToneData(ModalityData):
    def read(self, source, config, *, trains=False):
        if not isinstance(source, np.ndarray) or source.dtype != np.int16 or source.ndim != 2:
            raise InvalidData("data is no array of tones, int16 (n, samples).")
        return ToneDataset(source)

    def dump(self, details):
        return {"loudest": details}

    def load(self, values):
        if values.keys() != {"loudest"}:
            raise ValueError("these are not the details of tones")
        return values["loudest"]


class ToneTraining(ModalityTraining):
    unit = "tones"

    def batch(self, data, rows, device, options, *, varied):
        return {"tones": torch.from_numpy(data.tones[rows].astype(np.float32)).to(device)}


class Sampler(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, seed, controls):
        loudness = uniform(seed, 1, Stream.LATENT)[:, 0] * 0.5 + 0.5
        tone = self.mean * loudness[:, None] + controls["pitch"][:, None]
        return tone.round().to(torch.int16), loudness


class Means(Family):
    Config = FamilyConfig
    modality, tasks = "tone", ("generate",)

    def build(self, data):
        self.loudest, self.samples = data.details, data.shape[0]
        self.mean = nn.Parameter(torch.zeros(data.shape))

    def optimizers(self):
        return {"all": torch.optim.SGD(self.parameters(), lr=self.config.learning_rate)}

    def phases(self, step):
        return ("all",)

    def training_step(self, batch, phase, step, carry):
        return Losses(((batch["tones"] - self.mean) ** 2).mean(0).sum() / 2), carry

    def validate(self, batch):
        return {"error": float((batch["tones"] - self.mean).abs().mean())}

    def controls(self, task):
        return [Control(name="pitch", kind="pitch", default=0.0, help="of the tone")]

    def output(self, task):
        loudness = OutputPart(name="loudness", dtype="float32", minimum=0, maximum=1)
        return OutputSpec(dtype="int16", shape=(self.samples,), parts=(loudness,), attributes={"sample_rate": 8000})

    def sampler(self, task):
        return Sampler(self.mean)
