"""Comparing a file with the piece that was made again."""

import io
from pathlib import Path
from typing import Any

from aigc_music.item import Music
from aigc_sdk.contents import PROVENANCE_KEY, Item
from aigc_sdk.errors import InvalidProvenance, NotReproduced, missing_package, reason
from aigc_sdk.files import read_file
from aigc_sdk.likeness import IDENTICAL
from aigc_sdk.modality import ModalityReproduction


class MusicReproduction(ModalityReproduction):
    """Of a .mid file, which holds its provenance, and of a .wav file."""

    def provenance(self, path: Path) -> str | None:
        """Return the text of a MIDI file that holds it."""
        if path.suffix.lower() == ".musicxml":
            raise InvalidProvenance(f"{path} cannot be compared; a piece is reproduced from a .mid or a .wav file.")
        for message in _midi_messages(path) if path.suffix.lower() == ".mid" else ():
            if message.type == "text" and message.text.startswith(f"{PROVENANCE_KEY}="):
                return str(message.text.partition("=")[2])
        return None

    def compare(self, path: Path, made: Item) -> str:
        """Compare a file with what it would hold of the piece, but for its provenance."""
        assert isinstance(made, Music)
        if path.suffix.lower() == ".mid":

            def heard(source: Path | io.BytesIO) -> list[Any]:
                return [message for message in _midi_messages(source) if message.type != "text"]

            same = heard(path) == heard(io.BytesIO(made.midi_bytes()))
        elif path.suffix.lower() == ".wav":
            same = read_file(path) == made.wav_bytes()
        else:
            raise InvalidProvenance(f"{path} cannot be compared; a piece is reproduced from a .mid or a .wav path.")
        if not same:
            raise NotReproduced(
                f"{path} is not what its model makes here. The piece was edited, its provenance is another's, or the"
                " model runs differently here (`aigc selftest` tells)."
            )
        return IDENTICAL


def _midi_messages(source: Path | io.BytesIO) -> list[Any]:
    """Return the messages of a MIDI file, which may hold anything, one track after the other."""
    try:
        import mido
    except ImportError as error:
        raise missing_package("Reading MIDI", "mido", "music") from error
    try:
        named = {"file": source} if isinstance(source, io.BytesIO) else {"filename": str(source)}
        return [message for track in mido.MidiFile(**named).tracks for message in track]
    except Exception as error:
        raise InvalidProvenance(f"{source} is no MIDI file: {reason(error)}.") from error
