"""How a GAN is trained (Goodfellow et al. 2014, "Generative Adversarial Nets")."""

import logging
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from aigc_gan import networks
from aigc_gan.augment import diffaugment
from aigc_gan.config import GANConfig
from aigc_gan.losses import LOSSES, gradient_penalty, r1_penalty
from aigc_gan.networks import StyleGenerator
from aigc_gan.sampler import Generate, GenerateMixed, Interpolate
from aigc_gan.watch import Watch, collapse
from aigc_sdk.card import Control, OutputSpec
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import InvalidData, TrainingFailed, UnknownName, printable
from aigc_sdk.training import Batch, Carry, Family, Losses
from aigc_sdk.training.sampling import one_hot, premultiplied

SMALLEST, LARGEST = 8, 128

# On sets smaller than this the discriminator would learn the images by heart: there it sees varied ones, and its
# gradient is held back more.
_SMALL_SET = 10_000
_R1_OF_SMALL, _R1_OF_LARGE = 1.0, 0.1

# The share of varied images grows while more real images than these get a positive logit, and else shrinks; from none
# to all in so many images (Karras et al. 2020, "Training GANs with Limited Data", section 3, where it is five times as
# slow, for trainings of many million images).
_TARGET = 0.8
_RAMP_IMAGES = 100_000

# How much the running share of generated images that the discriminator tells follows each of its steps.
_TOLD_WEIGHT = 0.05

# Steps of a training that is given no limit, whatever the data.
_USUAL_STEPS = 6000

# Images that are generated at once when validating.
_AT_ONCE = 128

# Labels that a warning names.
_EXAMPLES = 5

# Generator, discriminator, and channels of the largest level.
_NETWORKS = {
    "dcgan": (networks.DcganGenerator, networks.DcganDiscriminator, 24),
    "resnet": (networks.ResnetGenerator, networks.ResnetDiscriminator, 16),
    "style": (networks.StyleGenerator, networks.ResnetDiscriminator, 16),
    "mlp": (networks.MlpGenerator, networks.MlpDiscriminator, 0),
}

_log = logging.getLogger("aigc_sdk")


class GAN(Family):
    """A generator and a discriminator, both conditional on the label when the data has labels."""

    modality = "image"
    Config = GANConfig
    tasks = ("generate", "interpolate")
    network_options = ("network", "latent", "width", "spectral_norm")
    scores = ()  # they compare within a training alone
    config: GANConfig
    share: Tensor
    told: Tensor

    @classmethod
    def usual_steps(cls, config: GANConfig, data: DataSpec, pass_steps: int) -> int:  # noqa: ARG003 - whatever they are
        """Return as many as both sides take to settle."""
        return _USUAL_STEPS

    def build(self, data: DataSpec) -> None:
        """Make both networks; images have 8 to 128 pixels a side."""
        if not all(SMALLEST <= side <= LARGEST for side in data.shape[:2]):
            raise InvalidData(
                f"The images are {data.shape[0]} x {data.shape[1]} pixels; a GAN takes {SMALLEST} to {LARGEST} a side."
            )
        if data.n < 2:
            raise InvalidData(
                f"There is {data.n} image to train on; a GAN compares images and needs at least 2, better thousands."
                " If there are more, use a smaller validation_fraction and test_fraction."
            )
        self.data = data
        config, labels = self.config, len(data.labels)
        generator, discriminator, width = _NETWORKS[config.network]
        width = config.width or width
        self.generator = generator(data.shape, labels, config.latent, width)
        self.discriminator = discriminator(data.shape, labels, width, normalised=config.spectral_norm)
        is_small, is_critic = data.n < _SMALL_SET, config.loss == "wgan-gp"
        by_size = _R1_OF_SMALL if is_small else _R1_OF_LARGE
        self.r1 = config.r1 if config.r1 is not None else 0.0 if config.spectral_norm or is_critic else by_size
        varies = is_small or config.diffaugment_share is not None
        policy: tuple[str, ...] = ("color", "translation", "cutout") if varies else ()
        self.policy = policy if config.diffaugment is None else config.diffaugment
        # What a critic makes has no zero that would tell real from generated.
        self.adapts = config.diffaugment_share is None and bool(self.policy) and not is_critic
        self.first_share = config.diffaugment_share if config.diffaugment_share is not None else float(is_critic)
        self.register_buffer("share", torch.tensor(self.first_share))
        self.register_buffer("told", torch.tensor(0.5))
        self.watch = Watch(data.shape[2], data.n)
        # Of the validations so far, only for warnings, so that a training that goes on begins anew: the least distance,
        # and how many in a row found something, by what was found; None before the first.
        self.least_distance = math.inf
        self.found_in_a_row: dict[str, int] | None = None

    def optimizers(self) -> dict[str, Optimizer]:
        """An Adam for each side, without momentum, which makes the two chase each other (Karras et al. 2018)."""
        rate = self.config.learning_rate
        rates = {"discriminator": self.config.discriminator_learning_rate or rate, "generator": rate}
        return {
            phase: Adam(getattr(self, phase).parameters(), lr=lr, betas=(0.0, 0.99), fused=True)
            for phase, lr in rates.items()
        }

    def phases(self, step: int) -> tuple[str, ...]:
        """The discriminator learns first."""
        return ("discriminator",) * self.config.discriminator_steps + ("generator",)

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the loss of one side."""
        if step == 0:
            self.forget()
        real = premultiplied(batch["images"])
        y = one_hot(batch.get("labels"), len(self.data.labels), real)
        z = torch.randn(len(y), self.config.latent, device=y.device)
        self.discriminator.requires_grad_(phase == "discriminator")
        if phase == "discriminator":
            return self.discriminator_losses(real, y, z, step), carry
        # Here, as a step may have several phases of the other side.
        self.watch.observe(real, batch.get("labels"), step)
        if step == 0 and (words := scarce(self.data)):
            _log.warning(words)
        return Losses(LOSSES[self.config.loss].generator(self.judge(premultiplied(self.generator(z, y)), y))), carry

    def discriminator_losses(self, real: Tensor, y: Tensor, z: Tensor, step: int) -> Losses:
        """Return the discriminator's loss, its penalty included, with that and the mean logits as parts."""
        with torch.no_grad():
            fake = premultiplied(self.generator(z, y))
        on_real, on_fake = self.judge(real, y), self.judge(fake, y)
        self.told.lerp_((on_fake < 0).float().mean(), _TOLD_WEIGHT)
        loss = LOSSES[self.config.loss].discriminator(on_real, on_fake)
        parts = {"real_logit": on_real.mean(), "generated_logit": on_fake.mean()}
        if self.adapts:
            parts["varied"] = self.share.clone()
            self.adapt(on_real)
        penalty = self.penalty(real, fake, y, step)
        if penalty is not None:
            parts["penalty"] = penalty
            loss = loss + penalty
        return Losses(loss, parts)

    def forget(self) -> None:
        """Undo what weights of another training bring along: its images and its shares."""
        self.watch.count.zero_()
        self.share.fill_(self.first_share)
        self.told.fill_(0.5)

    def adapt(self, on_real: Tensor) -> None:
        """Let the share of varied images follow how sure the discriminator is of real ones."""
        sure = (on_real > 0).float().mean()
        self.share.add_((sure - _TARGET).sign() * len(on_real) / _RAMP_IMAGES).clamp_(0, 1)

    def judge(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the discriminator's logits, float32 (n,), of images as it sees them, varied on small sets."""
        # Generated ones come in bfloat16 in mixed precision; all are varied in float32.
        logits: Tensor = self.discriminator(diffaugment(x.float(), self.policy, self.share), y)
        return logits

    def penalty(self, real: Tensor, fake: Tensor, y: Tensor, step: int) -> Tensor | None:
        """Return the weighted penalty on the discriminator's gradient in this step, a scalar, if there is one."""
        config, penalties = self.config, []
        # In full precision: the gradient of a gradient of bfloat16 is mostly rounding.
        with torch.autocast(real.device.type, enabled=False):
            if config.loss == "wgan-gp" and config.gradient_penalty:
                penalty = gradient_penalty(lambda x: self.judge(x, y), real, fake.float())
                penalties.append(config.gradient_penalty * penalty)
            if self.r1 and step % config.r1_interval == 0:
                penalty = r1_penalty(lambda x: self.judge(x, y), real)
                penalties.append(self.r1 / 2 * config.r1_interval * penalty)
        return torch.stack(penalties).sum() if penalties else None

    def assess(self, step: int, means: Mapping[str, float]) -> dict[str, float]:
        """Return how far what is generated from fixed seeds is from the real images, and warn of a collapse.

        The figures are those of `Watch.figures` and, where logits tell real from generated, "accuracy_generated", the
        share of generated images that the discriminator took for such in its last steps. It is that of the weights
        being trained: their average follows too late to show a discriminator that is fooled.
        """
        if self.watch.count < 2:
            return {}
        features = []
        random = torch.Generator().manual_seed(0)
        device = self.watch.features.device
        n = min(self.watch.compared, int(self.watch.count))
        for start in range(0, n, _AT_ONCE):
            label = self.watch.labels[start : min(n, start + _AT_ONCE)]
            y = one_hot(label, len(self.data.labels), label)
            z = torch.randn(len(label), self.config.latent, generator=random).to(device)
            features.append(self.watch.filters(premultiplied(self.generator(z, y))))
        made = torch.cat(features)
        if not made.isfinite().all():  # the loss does not tell, when it was the last step
            raise TrainingFailed(
                f"What the generator makes is not a number any more at step {step}. A smaller learning_rate or a"
                " clip_norm may help."
            )
        figures = self.watch.figures(made, len(self.data.labels))
        if self.config.loss != "wgan-gp":
            figures["accuracy_generated"] = self.told.item()
        if self.found_in_a_row is None and self.watch.is_uniform:
            _log.warning(
                "All %d real images that were looked at are the same, as the discriminator sees them: there is nothing"
                " to learn but this one. Look at the data.",
                int(self.watch.count),
            )
        self.tell(collapse({**figures, **means}, step, self.least_distance), step)
        self.least_distance = min(self.least_distance, figures["frechet"])
        return figures

    def tell(self, found: Mapping[str, str], step: int) -> None:
        """Warn of what a validation found; of what stays, only at the 1st, 2nd, 4th, 8th, ... validation in a row."""
        before = self.found_in_a_row or {}
        self.found_in_a_row = {name: before.get(name, 0) + 1 for name in found}
        for name, times in self.found_in_a_row.items():
            if times.bit_count() == 1:
                again = f" (validation {times} in a row)" if times > 1 else ""
                _log.warning("step %d%s: %s", step, again, found[name])

    def validate(self, batch: Batch) -> dict[str, float]:
        """Return "accuracy_real", the share of real images that the discriminator takes for real."""
        if self.config.loss == "wgan-gp":
            return {}
        y = one_hot(batch.get("labels"), len(self.data.labels), batch["images"])
        logits = self.discriminator(premultiplied(batch["images"]), y)
        return {"accuracy_real": (logits > 0).float().mean().item()}

    def controls(self, task: str) -> list[Control]:
        """Return what the task works on, `label` when the data has labels, and `truncation`."""
        truncation = _number("truncation", 1.0, 1, "1 as varied as trained, less is more typical, 0 the typical image")
        common = [truncation]
        if labels := self.data.labels:
            label_help = "class of the image; -1 leaves it to the seed"
            common.insert(0, Control(name="label", kind="choice", choices=labels, default=-1, help=label_help))
        if task == "interpolate":
            seed_b = Control(name="seed_b", kind="seed", default=0, help="the seed of the image at t = 1")
            return [seed_b, _number("t", 0.5, 1, "place between the images of seed and seed_b"), *common]
        if isinstance(self.generator, StyleGenerator):
            layers = self.generator.layers
            seed_b = Control(name="seed_b", kind="seed", default=0, help="the seed whose style the finer layers take")
            mix_help = f"the first of the {layers} layers, coarse to fine, that takes it; {layers}: none"
            mix = Control(name="mix_layer", kind="integer", minimum=0, maximum=layers, default=layers, help=mix_help)
            return [seed_b, mix, *common]
        return common

    def output(self, task: str) -> OutputSpec:
        """Every task makes an image of the data's shape."""
        return OutputSpec(dtype="uint8", shape=self.data.shape)

    def sampler(self, task: str) -> nn.Module:
        """The generator behind the random numbers."""
        if task not in self.tasks:
            raise UnknownName.of("task of the family gan", task, self.tasks)
        first = GenerateMixed if isinstance(self.generator, StyleGenerator) else Generate
        sampler = first if task == "generate" else Interpolate
        return sampler(self.generator, self.config.latent, self.data.label_frequencies)


def scarce(data: DataSpec) -> str:
    """Return what to say of labels with one image to train on or none; nothing if every label has more."""
    counts = [round(frequency * data.n) for frequency in data.label_frequencies]
    parts = []
    for count, words in enumerate(("no image to train on", "a single image")):
        names = [name for name, found in zip(data.labels, counts, strict=True) if found == count]
        if names:
            listed = printable(", ".join(names[:_EXAMPLES])) + (", ..." if len(names) > _EXAMPLES else "")
            parts.append(f"{len(names)} of {len(counts)} with {words} ({listed})")
    if not parts:
        return ""
    return (
        f"Of the labels there are {' and '.join(parts)}: what is made for them is arbitrary, or that image again. Give"
        " them more images, or leave them out."
    )


def _number(name: str, default: float, maximum: float, help_: str) -> Control:
    return Control(name=name, kind="number", minimum=0, maximum=maximum, default=default, help=help_)
