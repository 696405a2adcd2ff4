"""Recurrent networks for texts (Hochreiter & Schmidhuber 1997; Graves 2013)."""

from collections.abc import Callable

from aigc_sdk import FamilySpec, hookimpl


@hookimpl
def aigc_register_families(register: Callable[[FamilySpec], None]) -> None:
    """Declare the family `rnn`."""
    register(
        FamilySpec(
            name="rnn",
            target="aigc_rnn.family:RNN",
            summary="recurrent network for texts, a character at a time, with or without labels",
            extra="train",
            modalities=("text",),
        )
    )
