"""Texts: a kind of content."""

from collections.abc import Callable

from aigc_sdk import ModalitySpec, hookimpl


@hookimpl
def aigc_register_modalities(register: Callable[[ModalitySpec], None]) -> None:
    """Declare the modality `text`."""
    register(
        ModalitySpec(
            name="text", target="aigc_text.modality:TextModality", kinds=("text",), summary="texts", api_version=1
        )
    )
