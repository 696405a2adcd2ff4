"""How a VAE is trained (Kingma & Welling 2013, "Auto-Encoding Variational Bayes")."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from aigc_sdk.card import Control, OutputSpec
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import InvalidData, UnknownName
from aigc_sdk.training import Batch, Carry, Family, Losses, Size
from aigc_sdk.training.sampling import one_hot
from aigc_vae.config import VAEConfig
from aigc_vae.losses import Bernoulli, DiscretisedLogistic, flow_matching, kl_divergence, sample_latent
from aigc_vae.networks import Decoder, Encoder, FlowPrior, NormalPrior
from aigc_vae.sampler import Generate, Inpaint, Interpolate, Parts, Reconstruct

SMALLEST, LARGEST = 8, 128

# Times and noises that the flow learns from for each latent; they cost little beside the convolutions.
FLOW_COPIES = 4

# Batches, and the steps from which on each is worth while; and of a training that is given no limit, its passes.
_SIZES = (Size({"batch_size": 32}, 500), Size({"batch_size": 64}, 10_000), Size({"batch_size": 128}, 40_000))
_PASSES, _LEAST_STEPS, _MOST_STEPS = 20, 8000, 20_000

# At most so many steps until the KL term has its full weight.
_BETA_WARMUP = 1000

_SAMPLERS = {"generate": Generate, "interpolate": Interpolate, "reconstruct": Reconstruct, "inpaint": Inpaint}


class VAE(Family):
    """A convolutional VAE whose prior is learned, conditional on the label when the data has labels."""

    modality = "image"
    Config = VAEConfig
    tasks = tuple(_SAMPLERS)
    network_options = ("latent", "width", "blocks", "likelihood", "prior", "prior_width", "prior_layers")
    config: VAEConfig

    @classmethod
    def sizes(cls, config: VAEConfig, data: DataSpec) -> tuple[Size, ...]:  # noqa: ARG003 - whatever the data
        """A larger batch where the training has steps enough of a smaller one."""
        return _SIZES

    @classmethod
    def usual_steps(cls, config: VAEConfig, data: DataSpec, pass_steps: int) -> int:  # noqa: ARG003 - passes tell
        """Return the steps of so many passes, within bounds: few images take many passes to learn."""
        return min(max(_PASSES * pass_steps, _LEAST_STEPS), _MOST_STEPS)

    @classmethod
    def fitted(cls, config: VAEConfig, data: DataSpec, steps: int) -> dict[str, Any]:
        """Return what suits the data, and a warm-up of the KL term that ends early in the training."""
        chosen = suits(config, data)
        is_logistic = (config.likelihood or chosen["likelihood"]) == "logistic"
        warmup = min(_BETA_WARMUP, steps // 10)
        return {**chosen, "beta_warmup_steps": warmup, "premultiply": is_logistic and data.shape[2] == 4}

    def build(self, data: DataSpec) -> None:
        """Make the encoder, the decoder and the prior; images have 8 to 128 pixels a side."""
        if not all(SMALLEST <= side <= LARGEST for side in data.shape[:2]):
            raise InvalidData(
                f"The images are {data.shape[0]} x {data.shape[1]} pixels; a VAE takes {SMALLEST} to {LARGEST} a side."
            )
        self.data = data
        suited = {name: value for name, value in suits(self.config, data).items() if getattr(self.config, name) is None}
        self.config = config = self.config.model_copy(update=suited)
        labels = len(data.labels)
        # Trainings record the option; runs of before it was there learned colours as they are.
        is_premultiplied = bool(config.premultiply)
        self.latent = cast(int, config.latent)  # which `suits` gives where it was left out
        size = (data.shape, labels, self.latent, config.width, config.blocks)
        self.encoder = Encoder(*size, premultiplies=is_premultiplied)
        self.decoder = Decoder(*size)
        flow = (self.latent, labels, config.prior_width, config.prior_layers, config.prior_steps)
        self.prior = FlowPrior(*flow) if config.prior == "flow" else NormalPrior()
        is_logistic = config.likelihood == "logistic"
        logistic = DiscretisedLogistic(data.shape[2], premultiplies=is_premultiplied)
        self.likelihood = logistic if is_logistic else Bernoulli()

    def optimizers(self) -> dict[str, Optimizer]:
        """One Adam for all networks."""
        return {"all": Adam(self.parameters(), lr=self.config.learning_rate, betas=(0.9, 0.99), fused=True)}

    def phases(self, step: int) -> tuple[str, ...]:
        """All networks learn together."""
        return ("all",)

    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the negative evidence lower bound (eq. 3), its KL term weighted by beta, and what else is learned.

        The label is learned from the image (Kingma et al. 2014, eq. 9), the prior from the latents as they come.
        """
        x, y = self.inputs(batch)
        mu, logvar, logits = self.encoder(x)
        z = sample_latent(mu, logvar)
        assert self.config.beta is not None, "build chooses one"
        warmup = self.config.beta_warmup_steps
        beta = self.config.beta * (min(1.0, step / warmup) if warmup else 1.0)
        parts = {"reconstruction": self.distortion(z, y, x).mean(), "kl": kl_divergence(mu, logvar).mean()}
        total = parts["reconstruction"] + beta * parts["kl"]
        if self.data.labels:
            parts["label"] = F.cross_entropy(logits.float(), batch["labels"])
            total = total + parts["label"]
        if isinstance(self.prior, FlowPrior):
            self.prior.observe(z.detach())
            parts["prior"] = flow_matching(self.prior, z.detach(), y, FLOW_COPIES).mean()
            total = total + parts["prior"]
        return Losses(total, parts), carry

    def validate(self, batch: Batch) -> dict[str, float]:
        """Return the negative evidence lower bound with beta 1 and the prior N(0, 1), and its terms, in nats."""
        distortion, rate = (term.mean().item() for term in self.terms(batch))
        return {"negative_elbo": distortion + rate, "reconstruction": distortion, "kl": rate}

    def terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return -log p(x | z) with z drawn from the encoder, and KL(q || N(0, 1)); both (n,), in nats."""
        x, y = self.inputs(batch)
        mu, logvar, _ = self.encoder(x)
        return self.distortion(sample_latent(mu, logvar), y, x), kl_divergence(mu, logvar)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the images as the networks see them, (n, channels, height, width), and the one-hot labels."""
        x = batch["images"]
        if self.config.binarize:
            x = torch.bernoulli(x)
        return x, one_hot(batch.get("labels"), len(self.data.labels), x)

    def distortion(self, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return -log p(x | z, y), float32 (n,), in nats."""
        nats: Tensor = self.likelihood(self.decoder(z, y), x)
        return nats.flatten(1).sum(1)

    def controls(self, task: str) -> list[Control]:
        """Return what the task works on, `label` when the data has labels, and `temperature`."""
        image = Control(name="image", kind="image", shape=self.data.shape, default=None, help="the image to start from")
        if task == "reconstruct":
            spread = "spread of the latent around that of the image: 0 none, 1 as unsure as the encoder is"
            return [image, _number("temperature", 0.0, 2, spread)]
        spread = "spread of the latent: 1 as trained, less is more typical, 0 the average image"
        common = [_number("temperature", 1.0, 2, spread)]
        if labels := self.data.labels:
            fitting = " and to what is kept" if task == "inpaint" else ""
            label_help = f"class of the image; -1 leaves it to the seed{fitting}"
            common.insert(0, Control(name="label", kind="choice", choices=labels, default=-1, help=label_help))
        match task:
            case "interpolate":
                t_help = "place between the images of seed and seed_b"
                seed_b = Control(name="seed_b", kind="seed", default=0, help="the seed of the image at t = 1")
                return [seed_b, _number("t", 0.5, 1, t_help), *common]
            case "inpaint":
                mask_help = "255 where the image stays as it is, 0 where it is made anew"
                shape = (*self.data.shape[:2], 1)
                return [image, Control(name="mask", kind="mask", shape=shape, default=None, help=mask_help), *common]
        return common

    def output(self, task: str) -> OutputSpec:
        """Every task makes an image of the data's shape."""
        return OutputSpec(dtype="uint8", shape=self.data.shape)

    def sampler(self, task: str) -> nn.Module:
        """The networks behind the random numbers."""
        if task not in _SAMPLERS:
            raise UnknownName.of("task of the family vae", task, _SAMPLERS)
        parts = Parts(self.encoder, self.decoder, self.prior, self.likelihood)
        return _SAMPLERS[task](parts, self.latent, self.data.label_frequencies)


def suits(config: VAEConfig, data: DataSpec) -> dict[str, Any]:
    """Return options that suit the data, whatever the training: the values of those that were left out."""
    is_coloured = data.shape[2] > 2
    return {
        "latent": 64 if is_coloured else 32,
        "likelihood": "logistic" if is_coloured else "bernoulli",
        "beta": 0.5 if config.prior == "flow" else 1.0,
    }


def _number(name: str, default: float, maximum: float, help_: str) -> Control:
    return Control(name=name, kind="number", minimum=0, maximum=maximum, default=default, help=help_)
