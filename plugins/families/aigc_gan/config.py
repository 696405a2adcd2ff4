"""The options of the GAN family."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from aigc_image.training import ImageFamilyConfig
from aigc_sdk.training import split_at_commas

# What a network brings along where nothing else is given.
_PRESETS: dict[str, dict[str, Any]] = {
    "resnet": {
        "loss": "hinge",
        "spectral_norm": True,
        "learning_rate": 5e-4,
        "discriminator_learning_rate": 1e-3,
    }
}


class GANConfig(ImageFamilyConfig):
    """The options of the GAN family; what is left out is chosen for the data."""

    steps: int | None = Field(
        None, ge=1, description="stop after so many steps, if that comes first; 6,000 without epochs and minutes"
    )
    batch_size: int = Field(32, ge=2, description="items in a batch, which are compared, so that one is too few")
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate of the generator")
    keep_best: bool = Field(True, description="export the averaged weights of the least Frechet distance, not the last")

    validation_steps: int | None = Field(
        1000, ge=1, description="validate after every so many steps of a pass too, not only at its end"
    )

    network: Literal["dcgan", "resnet", "style", "mlp"] = Field(
        "dcgan",
        description="dcgan (Radford et al. 2015); resnet with spectral normalisation, the hinge loss and rates for them"
        " (Miyato et al. 2018); style, which mixes the styles of two seeds (Karras et al. 2018); or mlp, fully"
        " connected, for very small images",
    )
    latent: int = Field(64, ge=1, le=1024, description="dimensions of the latent")
    width: int | None = Field(
        None,
        ge=4,
        le=512,
        description="channels at the full size, twice as many at half of it and four times below; what suits the"
        " network if left out",
    )
    loss: Literal["non-saturating", "hinge", "wgan-gp"] = Field(
        "non-saturating",
        description="of Goodfellow et al. 2014; Lim & Ye 2017; or Arjovsky et al. 2017, with the gradient penalty of"
        " Gulrajani et al. 2017",
    )
    discriminator_learning_rate: float | None = Field(
        None,
        gt=0,
        description="peak learning rate of the discriminator (Heusel et al. 2017); the generator's if left out",
    )
    discriminator_steps: int = Field(1, ge=1, le=20, description="steps of the discriminator for one of the generator")
    r1: float | None = Field(
        None,
        ge=0,
        description="weight of the R1 penalty (Mescheder et al. 2018), 0 for none; if left out 1 on fewer than 10,000"
        " images and 0.1 on more, and none with spectral normalisation or wgan-gp",
    )
    r1_interval: int = Field(8, ge=1, description="steps from one R1 penalty to the next (Karras et al. 2020)")
    gradient_penalty: float = Field(10.0, ge=0, description="weight of the penalty of wgan-gp")
    spectral_norm: bool = Field(
        False, description="divide the discriminator's weights by their largest singular value (Miyato et al. 2018)"
    )
    diffaugment: tuple[Literal["color", "translation", "cutout"], ...] | None = Field(
        None,
        description="vary what the discriminator sees, real and generated alike (Zhao et al. 2020): some of color,"
        " translation, cutout; all of them on fewer than 10,000 images, and none on more, if left out",
    )
    diffaugment_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the images that are varied; if left out it grows while the discriminator learns the real"
        " images by heart (Karras et al. 2020); all of them with wgan-gp",
    )

    _split_policy = field_validator("diffaugment", mode="before")(split_at_commas)

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        network = values.get("network") if isinstance(values, dict) else None
        return {**_PRESETS.get(network, {}), **values} if isinstance(network, str) else values

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        if self.network == "mlp" and self.width is not None:
            raise ValueError("the network mlp has units of its own: leave out width")
        return self
