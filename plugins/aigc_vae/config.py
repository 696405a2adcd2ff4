"""The options of the VAE family."""

from typing import Literal

from pydantic import Field

from aigc_sdk.training import ImageFamilyConfig


class VAEConfig(ImageFamilyConfig):
    """The options of the VAE family."""

    latent: int = Field(32, ge=1, le=1024, description="dimensions of the latent")
    width: int = Field(32, ge=4, le=512, description="channels at half the size of the image; twice as many below")
    blocks: int = Field(2, ge=0, le=16, description="residual blocks at the smallest size")
    beta: float = Field(1.0, ge=0, description="weight of the KL term (Higgins et al. 2017); 1 is the plain VAE")
    beta_warmup_steps: int = Field(
        1000, ge=0, description="steps over which the weight of the KL term rises from 0, against unused latents"
    )
    binarize: bool = Field(
        False, description="draw every pixel as black or white, anew in each batch (Salakhutdinov & Murray 2008)"
    )
    likelihood: Literal["bernoulli", "logistic"] = Field(
        "bernoulli",
        description="of the values of pixels: for black and white with few greys, or of 256 levels, for colours",
    )
    prior: Literal["normal", "flow"] = Field(
        "flow",
        description="what latents are drawn from: a flow that learns where the encoder puts the data, or N(0, 1)",
    )
    prior_width: int = Field(160, ge=8, le=4096, description="hidden units of each layer of the flow")
    prior_layers: int = Field(3, ge=1, le=16, description="hidden layers of the flow")
    prior_steps: int = Field(8, ge=1, le=100, description="steps of the flow from noise to latent, when generating")
