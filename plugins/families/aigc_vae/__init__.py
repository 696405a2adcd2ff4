"""Variational autoencoders for images (Kingma & Welling 2013)."""

from collections.abc import Callable

from aigc_sdk import FamilySpec, hookimpl


@hookimpl
def aigc_register_families(register: Callable[[FamilySpec], None]) -> None:
    """Declare the family `vae`."""
    register(
        FamilySpec(
            name="vae",
            target="aigc_vae.family:VAE",
            summary="convolutional variational autoencoder for images, with or without labels",
            extra="train",
            modalities=("image",),
        )
    )
