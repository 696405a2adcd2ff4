"""Pieces of music as sound, as a score, and as a picture."""

import io
import tempfile
import warnings
import wave
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_music.events import DRUMS, TICKS, Notes, bar_ticks
from aigc_music.keys import KEYS, MODE_NAMES, MODES, key_sharps, note_name
from aigc_sdk.errors import missing_package
from aigc_sdk.files import storage_error

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    from aigc_music.item import Music

RATE = 22_050
_PARTIALS = (1.0, 0.5, 0.3, 0.15, 0.1, 0.05)
_ATTACK_S, _RELEASE_S, _HALF_LIFE_S = 0.008, 0.06, 0.35
_DRUM_S = 0.12

_PITCH_PIXELS, _QUARTER_PIXELS, _MOST_PIXELS = 6, 24, 4000
_COLOURS = ((38, 93, 171), (203, 89, 51), (60, 140, 88), (148, 85, 160), (176, 132, 28), (80, 80, 80))


def wav_bytes(notes: NDArray[np.float32]) -> bytes:
    """Return notes, float32 (n, 6), as a WAV file: 16 bits, one channel, 22,050 Hz, made by adding up sines.

    Each note is six partials that fade as those of a plucked string; drums are bursts of noise.
    """
    ends = notes[:, 2] + notes[:, 3]
    sound = np.zeros(int((float(ends.max(initial=0)) + _RELEASE_S + _DRUM_S) * RATE) + 1, np.float32)
    for pitch, velocity, onset, duration, _, program in notes.tolist():
        heard = _drum(int(pitch)) if program == DRUMS else _tone(pitch, duration)
        begin = int(onset * RATE)
        sound[begin : begin + len(heard)] += (heard * (velocity / 127))[: len(sound) - begin]
    loudest = float(np.abs(sound).max(initial=0))
    samples = np.rint(sound * (0.8 * 32767 / loudest if loudest else 0)).astype("<i2")
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return stream.getvalue()


def _tone(pitch: float, duration_s: float) -> NDArray[np.float32]:
    time = np.arange(int((duration_s + _RELEASE_S) * RATE), dtype=np.float32) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    heard = sum(
        level * 0.5 ** (time * (1 + 0.4 * k) / _HALF_LIFE_S) * np.sin(2 * np.pi * frequency * (k + 1) * time)
        for k, level in enumerate(_PARTIALS)
        if frequency * (k + 1) < RATE / 2
    )
    envelope = np.minimum(time / _ATTACK_S, 1) * np.clip((duration_s + _RELEASE_S - time) / _RELEASE_S, 0, 1)
    return np.asarray(heard * envelope, np.float32)


def _drum(pitch: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(pitch).standard_normal(int(_DRUM_S * RATE))
    return (noise * np.geomspace(1, 0.01, len(noise)) * 0.3).astype(np.float32)


def piano_roll(notes: Notes, meter: str | None) -> "PilImage":
    """Return the picture of `Music.to_pil` of notes, int64 (n, 6), in ticks."""
    from PIL import Image, ImageDraw

    low, high = (int(notes[:, 0].min()) - 2, int(notes[:, 0].max()) + 3) if len(notes) else (58, 75)
    end = int((notes[:, 2] + notes[:, 3]).max(initial=4 * TICKS))
    scale = min(_QUARTER_PIXELS / TICKS, _MOST_PIXELS / end)
    height = (high - low) * _PITCH_PIXELS
    image = Image.new("RGB", (int(end * scale) + 1, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for pitch in range(low, high):
        if pitch % 12 in (1, 3, 6, 8, 10):  # the black keys
            top = (high - 1 - pitch) * _PITCH_PIXELS
            draw.rectangle((0, top, image.width, top + _PITCH_PIXELS - 1), (242, 242, 244))
    bar = bar_ticks(meter or "4/4")
    for k in range(int(end / bar) + 1 if bar * scale >= 4 else 0):
        draw.line((k * bar * scale, 0, k * bar * scale, height), (205, 205, 212))
    for pitch, velocity, onset, duration, voice, _ in notes.tolist():
        top, left = (high - 1 - pitch) * _PITCH_PIXELS, onset * scale
        right = max(left + 1, (onset + duration) * scale - 1)
        shade = tuple(round(255 - (255 - part) * (0.4 + 0.6 * velocity / 127)) for part in _COLOURS[voice % 6])
        draw.rectangle((left, top, right, top + _PITCH_PIXELS - 2), shade)
    return image


def musicxml_bytes(piece: "Music") -> bytes:
    """Return a piece as a MusicXML file, written by music21.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import music21
    except ImportError as error:
        raise missing_package("Saving MusicXML", "music21", "music") from error
    m21: Any = music21
    notes = piece.to_ticks()
    sharps, model = key_sharps(piece.key) if piece.key else 0, piece.provenance["model"]
    score = m21.stream.Score()
    score.insert(0, m21.metadata.Metadata(title=f"{model}, seed {piece.seed}", composer=model))
    for voice in np.unique(notes[:, 4]).tolist() or [0]:
        part = m21.stream.Part()
        part.insert(0, m21.meter.TimeSignature(piece.meter or "4/4"))
        part.insert(0, m21.tempo.MetronomeMark(number=round(piece.tempo, 3)))
        if piece.key:
            part.insert(0, _key(m21, piece.key))
        of_voice = notes[notes[:, 4] == voice]
        if len(of_voice) and of_voice[0, 5] != DRUMS:
            part.insert(0, m21.instrument.instrumentFromMidiProgram(int(of_voice[0, 5])))
        for pitch, velocity, onset, duration, _, _ in of_voice.tolist():
            name = note_name(pitch, sharps).replace("b", "-")
            note = m21.note.Note(name, quarterLength=Fraction(duration, TICKS))
            note.volume.velocity = velocity
            part.insert(Fraction(onset, TICKS), note)
        score.insert(0, part)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder, "piece.musicxml")
        try:
            score.write("musicxml", fp=path)
            return path.read_bytes()
        except OSError as error:
            raise storage_error("write", path, error) from error


def _key(m21: Any, name: str) -> Any:
    mode = KEYS.index(name) // 12
    spelled = name.removesuffix(list(MODES)[mode]).replace("b", "-")
    return m21.key.Key(spelled, MODE_NAMES[mode])
