"""The key of a piece by its notes."""

from collections.abc import Sequence

import numpy as np

from aigc_music.events import DRUMS, Notes

# How well each degree of the twelve fits a major and a minor key (Krumhansl & Kessler 1982, figure 2).
_PROFILES = np.array(
    [
        [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
        [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
    ]
)


def find_key(notes: Notes, among: Sequence[int] = range(24)) -> int:
    """Return the index in KEYS of the major or minor key whose profile the durations fit best (Krumhansl 1990, ch. 4).

    Args:
        notes: int64 (n, 6).
        among: the keys that it may be, indices in KEYS, of 0 to 23.

    Example:
        >>> from aigc_music.keys import KEYS
        >>> KEYS[find_key(np.array([[57, 80, 0, 48, 0, 0], [60, 80, 48, 24, 0, 0], [64, 80, 72, 48, 0, 0]]))]
        'Am'
    """
    pitched = notes[notes[:, 5] != DRUMS]
    heard = np.bincount(pitched[:, 0] % 12, pitched[:, 3], minlength=12)
    profiles = np.concatenate([[np.roll(profile, tonic) for tonic in range(12)] for profile in _PROFILES])
    centred = profiles - profiles.mean(1, keepdims=True)
    fits = centred @ (heard - heard.mean()) / np.linalg.norm(centred, axis=1)
    return among[int(np.argmax(fits[list(among)]))]
