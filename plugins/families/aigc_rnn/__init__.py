"""Recurrent networks for texts and for music (Hochreiter & Schmidhuber 1997; Graves 2013)."""

from collections.abc import Callable

from aigc_sdk import FamilySpec, hookimpl


@hookimpl
def aigc_register_families(register: Callable[[FamilySpec], None]) -> None:
    """Declare the families `rnn` and `music-rnn`."""
    register(
        FamilySpec(
            name="rnn",
            target="aigc_rnn.family:RNN",
            summary="recurrent network for texts, a character at a time, with or without labels",
            extra="train",
            modalities=("text",),
        )
    )
    register(
        FamilySpec(
            name="music-rnn",
            target="aigc_rnn.music:MusicRNN",
            summary="recurrent network for pieces of music, an event at a time, in a key and a metre",
            extra="train",
            modalities=("music",),
        )
    )
