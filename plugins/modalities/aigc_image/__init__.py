"""Images: a kind of content."""

from collections.abc import Callable

from aigc_sdk import ModalitySpec, hookimpl


@hookimpl
def aigc_register_modalities(register: Callable[[ModalitySpec], None]) -> None:
    """Declare the modality `image`."""
    register(
        ModalitySpec(
            name="image",
            target="aigc_image.modality:ImageModality",
            kinds=("image", "mask"),
            summary="images",
            api_version=1,
        )
    )
