"""The options of the VAE family."""

from typing import Literal, Self

from pydantic import Field, model_validator

from aigc_image.training import ImageFamilyConfig


class VAEConfig(ImageFamilyConfig):
    """The options of the VAE family; what is left out is chosen for the data and for how long the training is."""

    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate; warmed up, then a half cosine to 0")
    latent: int | None = Field(
        None, ge=1, le=1024, description="dimensions of the latent; if left out 32 for grey images and 64 for colours"
    )
    width: int = Field(32, ge=4, le=512, description="channels at half the size of the image; twice as many below")
    blocks: int = Field(2, ge=0, le=16, description="residual blocks at the smallest size")
    beta: float | None = Field(
        None,
        ge=0,
        description="weight of the KL term (Higgins et al. 2017); 1 is the plain VAE. If left out 0.5 with a learned"
        " prior, for sharper images, and 1 with N(0, 1)",
    )
    beta_warmup_steps: int | None = Field(
        None,
        ge=0,
        description="steps over which the weight of the KL term rises from 0, against unused latents; if left out"
        " 1,000, but a tenth of all at most",
    )
    binarize: bool = Field(
        False, description="draw every pixel as black or white, anew in each batch (Salakhutdinov & Murray 2008)"
    )
    likelihood: Literal["bernoulli", "logistic"] | None = Field(
        None,
        description="of the values of pixels: bernoulli for black and white with few greys, logistic for 256 levels; if"
        " left out bernoulli for grey images and logistic for colours",
    )
    premultiply: bool | None = Field(
        None,
        description="learn colours multiplied by the alpha, so that it is of no matter what colour a transparent pixel"
        " has; with likelihood=logistic, and there the default",
    )
    prior: Literal["normal", "flow"] = Field(
        "flow",
        description="what latents are drawn from: a flow that learns where the encoder puts the data, or N(0, 1)",
    )
    prior_width: int = Field(160, ge=8, le=4096, description="hidden units of each layer of the flow")
    prior_layers: int = Field(3, ge=1, le=16, description="hidden layers of the flow")
    prior_steps: int = Field(8, ge=1, le=100, description="steps of the flow from noise to latent, when generating")

    @model_validator(mode="after")
    def _premultiplies_levels(self) -> Self:
        if self.premultiply and self.likelihood == "bernoulli":
            raise ValueError("premultiply needs likelihood=logistic")
        return self
