"""Generative adversarial networks for images (Goodfellow et al. 2014)."""

from collections.abc import Callable

from aigc_sdk import FamilySpec, hookimpl


@hookimpl
def aigc_register_families(register: Callable[[FamilySpec], None]) -> None:
    """Declare the family `gan`."""
    register(
        FamilySpec(
            name="gan",
            target="aigc_gan.family:GAN",
            summary="generative adversarial networks for sharp images, with or without labels",
            extra="train",
            modalities=("image",),
        )
    )
