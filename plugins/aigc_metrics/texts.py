"""Metrics of texts: what was copied word for word, and how near the short runs of characters are to real ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aigc_metrics.runs import Codes, found
from aigc_sdk.evaluator import Evaluator, ItemSamples, Measured

# Characters of a window. People quote less by heart, and by chance nobody writes as many again.
WINDOW = 30

_GRAM = 3
_RESAMPLES = 1000
_GRAM_RESAMPLES = 100  # each counts all over again

_SHOWN = 60


def characters_of(texts: Sequence[str]) -> Codes:
    """Return the code points of texts, one after the other."""
    sizes = np.array([len(text) for text in texts], np.int64)
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(codes))
    return Codes(codes, left, np.repeat(np.arange(len(texts)), sizes))


def longest_run(asked: Sequence[str], corpus: Codes) -> str:
    """Return the longest run of characters in one of the texts that stands in a text of the corpus too."""
    characters, joined = characters_of(asked), "".join(asked)
    best, low, high = "", 1, max(map(len, asked), default=0)
    while low <= high:  # a run of a size has runs of every smaller size in it
        size = (low + high) // 2
        at = np.flatnonzero(found(characters, corpus, size))
        if len(at):
            best, low = joined[at[0] : at[0] + size], size + 1
        else:
            high = size - 1
    return best


class Verbatim(Evaluator):
    """Share of what was generated that stands word for word in the training texts."""

    direction = "lower"
    modality = "text"
    explanation = (
        f"Whether texts are copied: the share of their windows of {WINDOW} characters that stand in the training"
        " texts; of a shorter text, whether it is one of them. Beside it the same share of held-out texts, which says"
        " what is quoted anyway, and the longest run of characters that stands in both."
    )
    min_items = 10
    needs_train = True

    def measure(self, samples: ItemSamples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        assert samples.train is not None  # needs_train
        train, real = characters_of(samples.train), characters_of(samples.real)
        rng = np.random.default_rng(seed)
        share, interval = _pooled(samples.fake, samples.train, train, rng)
        natural, (_, most_natural) = _pooled(samples.real, samples.train, train, rng)
        # Would the model copy nothing, what it makes stood as often in held-out texts, for their size.
        ratio = _size(samples.train, train) / _size(samples.real, real)
        there, (_, most_there) = _pooled(samples.fake, samples.real, real, rng)
        run = longest_run(samples.fake, train)
        copies = interval[0] > max(most_natural, most_there * ratio, 0.01)
        shown = run if len(run) <= _SHOWN else f"{run[:_SHOWN]}..."
        verdict = f"{'It copies' if copies else 'No sign of copying'}; the longest run is {shown!r}."
        details = {
            "longest_run": float(len(run)),
            "held_out": natural,
            "held_out_longest_run": float(len(longest_run(samples.real, train))),
            "expected": min(1.0, there * ratio),
        }
        return Measured(share, interval, details=details, verdict=verdict)


def _size(texts: Sequence[str], characters: Codes) -> int:
    """Return how many windows there are, where a text that is shorter is one."""
    return characters.windows(WINDOW) + sum(len(text) < WINDOW for text in texts)


def _pooled(
    texts: Sequence[str], corpus: Sequence[str], characters: Codes, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """Return the share of the windows of all texts that stand in the corpus, and its interval over the texts."""
    asked, whole = characters_of(texts), set(corpus)
    hits = np.bincount(asked.owner[found(asked, characters, WINDOW)], minlength=len(texts))
    windows = np.bincount(asked.owner[asked.left >= WINDOW], minlength=len(texts))
    for i, text in enumerate(texts):
        if len(text) < WINDOW:
            windows[i], hits[i] = 1, text in whole
    n = len(texts)
    weights = rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES)
    low, high = np.percentile((weights @ hits) / np.maximum(weights @ windows, 1), [2.5, 97.5])
    return float(hits.sum() / windows.sum()), (float(low), float(high))


class NGrams(Evaluator):
    """Jensen-Shannon divergence (Lin 1991, eq. 4.1) of the frequencies of runs of three characters, in bits."""

    direction = "lower"
    modality = "text"
    explanation = (
        f"How far the frequencies of runs of {_GRAM} characters are from those of held-out texts: 0 bits are the same,"
        " 1 bit nothing in common. Fewer or shorter texts have a larger one; compare with what training texts reach."
    )
    min_items = 10

    def measure(self, samples: ItemSamples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        rng = np.random.default_rng(seed)
        value, spread = _divergence(samples.fake, samples.real, rng)
        baseline = None if samples.baseline is None else _divergence(samples.baseline, samples.real, None)[0]
        compared = "" if not baseline else f"{value / baseline:.2f} times what training texts reach."
        return Measured(value, (max(0.0, value - spread), value + spread), baseline, verdict=compared)


def _divergence(fake: Sequence[str], real: Sequence[str], rng: np.random.Generator | None) -> tuple[float, float]:
    """Return the divergence, and 1.96 deviations of it over resamples of the generated texts."""
    made, known = characters_of(fake), characters_of(real)
    grams, owners = [], []
    for characters in (made, known):
        whole = np.flatnonzero(characters.left >= _GRAM)
        # A code point has 21 bits.
        parts = [characters.codes[whole + k] << np.uint64(21 * k) for k in range(_GRAM)]
        grams.append(parts[0] | parts[1] | parts[2])
        owners.append(characters.owner[whole])
    kinds, which = np.unique(np.concatenate(grams), return_inverse=True)
    which_fake, which_real = which[: len(grams[0])], which[len(grams[0]) :]
    q = np.bincount(which_real, minlength=len(kinds))

    def from_real(weights: NDArray[np.float64] | None) -> float:
        p = np.bincount(which_fake, weights, minlength=len(kinds))
        return _jensen_shannon(p / max(p.sum(), 1), q / max(q.sum(), 1))

    if rng is None:
        return from_real(None), 0.0
    chosen = rng.multinomial(len(fake), np.full(len(fake), 1 / len(fake)), _GRAM_RESAMPLES).astype(np.float64)
    return from_real(None), 1.96 * float(np.std([from_real(weights[owners[0]]) for weights in chosen]))


def _jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    middle = (p + q) / 2
    parts = (each[each > 0] @ np.log2(each[each > 0] / middle[each > 0]) for each in (p, q))
    return float(sum(parts) / 2)
