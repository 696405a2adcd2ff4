"""Music: a kind of content."""

from collections.abc import Callable

from aigc_sdk import ModalitySpec, hookimpl


@hookimpl
def aigc_register_modalities(register: Callable[[ModalitySpec], None]) -> None:
    """Declare the modality `music`."""
    register(
        ModalitySpec(
            name="music",
            target="aigc_music.modality:MusicModality",
            kinds=("music",),
            summary="pieces of music",
            api_version=1,
        )
    )
