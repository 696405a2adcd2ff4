"""Metrics of music: the notes of pieces against those of real ones, and which runs of notes were copied."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from aigc_metrics.runs import Codes, found
from aigc_music.data import Piece
from aigc_music.events import PROGRAMS, TICKS, Notes, in_order
from aigc_music.keys import KEYS, scale
from aigc_sdk.evaluator import Evaluator, ItemSamples, Measured

# Notes of a run that counts as copied: of eighths, three bars in 4/4 and four in 6/8.
RUN = 24

_DRUMS = PROGRAMS - 1
_RESAMPLES = 1000
_MIN_ITEMS = 10

Floats = NDArray[np.float64]
Pieces = Sequence[Piece]


def pitched(notes: Notes) -> Notes:
    """Return notes, int64 (n, 6), without those of drums, whose pitch says which drum it is."""
    chosen: Notes = notes[notes[:, 5] != _DRUMS]
    return chosen


# --- figures of one piece ---


def pitch_classes(notes: Notes, tonic: int = 0) -> Floats:
    """Return the share of the notes' durations on each of the twelve semitones from the tonic up, float64 (12,).

    This is the pitch class histogram (Yang & Lerch 2020), weighted by duration. All 0 without a note.

    Args:
        notes: int64 (n, 6), in ticks, see `aigc_music.events`; drums do not count.
        tonic: semitones above C, 0 to 11.

    Example:
        >>> pitch_classes(np.array([[62, 80, 0, 72, 0, 0], [69, 80, 72, 24, 0, 0]]), tonic=2).tolist()
        [0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0]
    """
    heard = pitched(notes)
    ticks: Floats = np.bincount((heard[:, 0] - tonic) % 12, heard[:, 3], minlength=12).astype(np.float64)
    return ticks / max(float(ticks.sum()), 1.0)


def note_density(notes: Notes) -> float:
    """Return the notes per quarter note, from the first onset to the last end; 0 without a note.

    Example:
        >>> note_density(np.array([[60, 80, 48, 24, 0, 0], [62, 80, 72, 24, 0, 0]]))
        2.0
    """
    if not len(notes):
        return 0.0
    return float(len(notes) * TICKS / ((notes[:, 2] + notes[:, 3]).max() - notes[:, 2].min()))


def polyphony(notes: Notes) -> float:
    """Return how many notes sound at once, on average over the time in which any does; 0 without a note.

    As in MusPy (Dong et al. 2020, `polyphony`), but over time and not its steps; Mogren (2016) and Dong et al. (2018)
    take the share of the time in which several sound. Drums do not count.

    Example:
        >>> polyphony(np.array([[60, 80, 0, 48, 0, 0], [64, 80, 0, 24, 0, 0], [67, 80, 96, 48, 0, 0]]))
        1.25
    """
    heard = in_order(pitched(notes))
    if not len(heard):
        return 0.0
    ends = np.maximum.accumulate(heard[:, 2] + heard[:, 3])
    silent = np.maximum(heard[1:, 2] - ends[:-1], 0).sum()
    return float(heard[:, 3].sum() / (ends[-1] - heard[0, 2] - silent))


def scale_consistency(notes: Notes, key: str | None) -> float:
    """Return the share of the notes' durations that lie in the scale of a key; 0 without a note.

    Without a key it is that of the major or minor scale that fits best, which is the scale consistency of Mogren
    (2016), weighted by duration; the scale of a minor key is the natural one, which a major key has too.

    Args:
        notes: int64 (n, 6), in ticks; drums do not count.
        key: one of KEYS, or None.

    Example:
        >>> notes = np.array([[67, 80, 0, 72, 0, 0], [66, 80, 72, 24, 0, 0]])
        >>> scale_consistency(notes, "C"), scale_consistency(notes, None)
        (0.75, 1.0)
    """
    shares = pitch_classes(notes)
    return float(max(shares[scale(name)].sum() for name in (KEYS[:12] if key is None else [key])))


# --- runs of notes that were copied ---


def steps(pieces: Iterable[Notes]) -> Codes:
    """Return what leads from each note to the next one of its voice, so that runs of it can be looked for.

    A step is the interval between the pitches, in semitones with its sign, and the time between the onsets, in ticks.
    So pieces have the same steps in every key, but not at twice the speed. Notes are in the order of onset and pitch;
    those of a chord are steps of no time. Drums do not count. `owner` is the piece, and `left` the steps to the end of
    the voice.

    Args:
        pieces: the notes of each, int64 (n, 6), in ticks.
    """
    codes, left, owner = ([np.zeros(0, kind)] for kind in (np.uint64, np.int64, np.int64))
    for i, notes in enumerate(pieces):
        heard = pitched(notes)
        heard = heard[np.lexsort((heard[:, 0], heard[:, 2], heard[:, 4]))]
        moves = np.diff(heard, axis=0)
        is_within = moves[:, 4] == 0
        codes.append((moves[:, 2] * 256 + moves[:, 0] + 128)[is_within].astype(np.uint64))
        ends = np.append(np.flatnonzero(~is_within), len(moves))  # places between notes at which a voice ends
        left.append((ends[np.searchsorted(ends, np.arange(len(moves)))] - np.arange(len(moves)))[is_within])
        owner.append(np.full(int(is_within.sum()), i))
    return Codes(np.concatenate(codes), np.concatenate(left), np.concatenate(owner))


def longest_runs(pieces: Sequence[Notes], corpus: Codes) -> NDArray[np.int64]:
    """Return of each piece how many notes its longest run has that stands in the corpus in some key, int64 (n,).

    A run is consecutive notes of one voice; two are the same when all their `steps` are, so a run of n notes is n - 1
    of these. One note is found everywhere; 0 of a piece without notes.

    Args:
        pieces: the notes of each, int64 (n, 6), in ticks.
        corpus: `steps` of the pieces to look in.

    Example:
        >>> tune = np.array([[pitch, 80, 24 * i, 24, 0, 0] for i, pitch in enumerate((62, 64, 66, 67, 69))])
        >>> other = tune + [5, 0, 0, 0, 0, 0]
        >>> other[3, 0] += 2
        >>> longest_runs([tune, other], steps([tune - [2, 0, 0, 0, 0, 0]])).tolist()
        [5, 3]
    """
    asked = steps(pieces)
    low, high = np.zeros(len(pieces), np.int64), np.zeros(len(pieces), np.int64)
    np.maximum.at(high, asked.owner, asked.left)
    # A run of a size has runs of every smaller size in it. All pieces for which a size is open are looked up at once.
    while (is_open := low < high).any():
        size = int((low + high + 1)[is_open][0]) // 2
        group = (low < size) & (size <= high)
        chosen = group[asked.owner]
        part = Codes(asked.codes[chosen], asked.left[chosen], asked.owner[chosen])
        is_there = np.bincount(part.owner[found(part, corpus, size)], minlength=len(pieces)) > 0
        low[group & is_there] = size
        high[group & ~is_there] = size - 1
    return np.array(
        [run + (len(pitched(notes)) > 0) for run, notes in zip(low.tolist(), pieces, strict=True)], np.int64
    )


# --- the metrics ---


class Histogram(Evaluator):
    """Total variation distance between the mean histograms of generated and of real pieces.

    That is half the sum of |p - q|: the share of one histogram that would have to move to make it the other. Each piece
    has the same weight; one in which there is nothing to count has it all in a bin of its own.
    """

    direction = "lower"
    modality = "music"
    min_items = _MIN_ITEMS

    def measure(self, samples: ItemSamples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        fake, real, known = self.histograms(samples)
        value, spread = _variation(fake, real, np.random.default_rng(seed))
        baseline = None if known is None else _variation(known, real, None)[0]
        compared = f"{value / baseline:.2f} times what training pieces reach." if baseline else ""
        return Measured(value, (max(0.0, value - spread), min(value + spread, 1.0)), baseline, verdict=compared)

    @abstractmethod
    def histograms(self, samples: ItemSamples) -> tuple[Floats, Floats, Floats | None]:
        """Return the histograms of generated, of real and of training pieces, float64 (n, bins), of the same bins."""


def _variation(fake: Floats, real: Floats, rng: np.random.Generator | None) -> tuple[float, float]:
    """Return the distance, and 1.96 deviations of it over resamples of the generated pieces."""
    fake, real = (np.column_stack([each, 1 - each.sum(1)]) for each in (fake, real))
    n, q = len(fake), real.mean(0)

    def from_real(counts: NDArray[np.int64]) -> float:
        return float(np.abs(counts @ fake / n - q).sum() / 2)

    value = from_real(np.ones(n, np.int64))
    if rng is None:
        return value, 0.0
    resampled = [from_real(np.bincount(rng.integers(n, size=n), minlength=n)) for _ in range(_RESAMPLES)]
    return value, 1.96 * float(np.std(resampled))


class PitchClasses(Histogram):
    """Distance of the pitch class histograms (Yang & Lerch 2020) relative to the tonic, by `pitch_classes`.

    When some piece has no key, all histograms begin at C instead.
    """

    explanation = (
        "How far the share of the time that each degree of the twelve sounds, counted from the tonic of the piece's"
        " key, is from that in real pieces: 0 is the same, 1 is nothing in common."
    )

    def histograms(self, samples: ItemSamples) -> tuple[Floats, Floats, Floats | None]:
        """See `Histogram.histograms`."""
        parts = (samples.fake, samples.real, samples.baseline)
        are_in_keys = all(piece.key is not None for part in parts for piece in part or ())

        def of(pieces: Pieces) -> Floats:
            tonics = [(piece.key or 0) % 12 if are_in_keys else 0 for piece in pieces]
            return np.stack([pitch_classes(piece.notes, tonic) for piece, tonic in zip(pieces, tonics, strict=True)])

        return of(samples.fake), of(samples.real), None if samples.baseline is None else of(samples.baseline)


class Durations(Histogram):
    """Distance of the histograms of note durations, in ticks (the note length histogram of Yang & Lerch 2020)."""

    explanation = (
        "How far the share that notes of each duration have in a piece is from that in real pieces: 0 is the same, 1 is"
        " nothing in common."
    )

    def histograms(self, samples: ItemSamples) -> tuple[Floats, Floats, Floats | None]:
        """See `Histogram.histograms`."""
        parts = [part for part in (samples.fake, samples.real, samples.baseline) if part is not None]
        kinds = np.unique(np.concatenate([piece.notes[:, 3] for part in parts for piece in part]))

        def of(pieces: Pieces) -> Floats:
            counts = [np.bincount(np.searchsorted(kinds, each.notes[:, 3]), minlength=len(kinds)) for each in pieces]
            return np.stack([count / max(count.sum(), 1) for count in counts])

        fake, real, *known = map(of, parts)
        return fake, real, known[0] if known else None


class PieceFigure(Evaluator):
    """Wasserstein distance W1 between a figure of generated pieces and the same of real ones, in its unit.

    It is the mean over quantiles of how far they are apart, so that pieces which are all alike do not get by with a
    right mean. `details` has the means, `mean` and `real_mean`.
    """

    direction = "lower"
    modality = "music"
    min_items = _MIN_ITEMS
    unit: ClassVar[str]

    def measure(self, samples: ItemSamples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        fake, real = (_each(self.figure, part) for part in (samples.fake, samples.real))
        value, rng = wasserstein(fake, real), np.random.default_rng(seed)
        spread = 1.96 * float(np.std([wasserstein(rng.choice(fake, len(fake)), real) for _ in range(_RESAMPLES)]))
        baseline = None if samples.baseline is None else wasserstein(_each(self.figure, samples.baseline), real)
        means = {"mean": float(fake.mean()), "real_mean": float(real.mean())}
        verdict = f"{means['mean']:.3g} {self.unit} in generated pieces, {means['real_mean']:.3g} in real ones."
        return Measured(value, (max(0.0, value - spread), value + spread), baseline, means, verdict)

    @abstractmethod
    def figure(self, notes: Notes) -> float:
        """Return the figure of one piece."""


def _each(figure: Callable[[Notes], float], pieces: Pieces) -> Floats:
    return np.array([figure(piece.notes) for piece in pieces])


def wasserstein(a: Floats, b: Floats) -> float:
    """Return the distance W1 of two samples of numbers: the area between their distribution functions.

    Example:
        >>> wasserstein(np.array([0.0, 1.0]), np.array([1.0, 4.0]))
        2.0
    """
    both = np.sort(np.concatenate([a, b]))
    below_a, below_b = (np.searchsorted(np.sort(each), both[:-1], "right") / len(each) for each in (a, b))
    return float(np.abs(below_a - below_b) @ np.diff(both))


class Density(PieceFigure):
    """How far notes per quarter note, by `note_density`, are from those of real pieces."""

    explanation = "How far the number of notes per quarter note is from that of real pieces; 0 is the same."
    unit = "notes per quarter note"

    def figure(self, notes: Notes) -> float:
        """See `PieceFigure.figure`."""
        return note_density(notes)


class Polyphony(PieceFigure):
    """How far the notes that sound at once, by `polyphony`, are from those of real pieces."""

    explanation = (
        "How far the number of notes that sound at once, while any does, is from that of real pieces; 0 is the same."
    )
    unit = "notes at once"

    def figure(self, notes: Notes) -> float:
        """See `PieceFigure.figure`."""
        return polyphony(notes)


class ScaleConsistency(Evaluator):
    """Share of generated pieces that keep to their key as nine in ten real ones do, by `scale_consistency`.

    The bound is the 10th percentile of the real pieces' consistency with the keys that are written: the largest that
    at least nine in ten of them reach. `details` has it as `real_percentile_10`, and the means, `mean` and `real_mean`.
    """

    direction = "higher"
    modality = "music"
    explanation = (
        "The share of generated pieces that keep to the scale of their key at least as well as nine in ten real ones:"
        " of the time of their notes at least so much lies in it. Real ones have 0.9 or more."
    )
    min_items = _MIN_ITEMS

    def measure(self, samples: ItemSamples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        fake, real = _consistencies(samples.fake), _consistencies(samples.real)
        bound = float(np.percentile(real, 10, method="lower"))
        reaches = fake >= bound - 1e-9  # sums of the same shares in another order
        baseline = None
        if samples.baseline is not None:
            baseline = float((_consistencies(samples.baseline) >= bound - 1e-9).mean())
        interval = _resampled(reaches, np.random.default_rng(seed))
        details = {"mean": float(fake.mean()), "real_mean": float(real.mean()), "real_percentile_10": bound}
        verdict = f"{fake.mean():.1%} of the time lies in the key, {real.mean():.1%} in real pieces."
        return Measured(float(reaches.mean()), interval, baseline, details, verdict)


def _consistencies(pieces: Pieces) -> Floats:
    keys = (None if piece.key is None else KEYS[piece.key] for piece in pieces)
    return np.array([scale_consistency(piece.notes, key) for piece, key in zip(pieces, keys, strict=True)])


def _resampled(values: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a share."""
    n = len(values)
    low, high = np.percentile(rng.binomial(n, values.mean(), _RESAMPLES) / n, [2.5, 97.5])
    return float(low), float(high)


class Quotes(Evaluator):
    """Share of generated pieces with a run of `RUN` notes that stands in a training piece, in whatever key.

    See `longest_runs` for what a run is. `details` has the `longest_run` in notes, the `mean_run`, which is that of the
    pieces' longest, the same three of held-out pieces against the training pieces, and `expected`: the share of
    generated pieces with such a run in held-out pieces, brought to the size of the training pieces.
    """

    direction = "lower"
    modality = "music"
    explanation = (
        f"Whether pieces are copied: the share that has {RUN} notes in a row, in the same rhythm and in whatever key,"
        " that stand in a training piece. Beside it the same share of held-out pieces, for tunes are handed on and"
        " borrowed, and the longest run."
    )
    min_items = _MIN_ITEMS
    needs_train = True

    def measure(self, samples: ItemSamples, seed: int) -> Measured:
        """See `Evaluator.measure`."""
        assert samples.train is not None  # needs_train
        fake, held_out = ([piece.notes for piece in part] for part in (samples.fake, samples.real))
        train, real = steps(piece.notes for piece in samples.train), steps(held_out)
        runs, natural = longest_runs(fake, train), longest_runs(held_out, train)
        there = longest_runs(fake, real) >= RUN
        rng = np.random.default_rng(seed)
        interval, (_, most_natural), (_, most_there) = (
            _resampled(each, rng) for each in (runs >= RUN, natural >= RUN, there)
        )
        # Would the model copy nothing, runs of it stood as often in held-out pieces, for their size.
        ratio = train.windows(RUN - 1) / max(real.windows(RUN - 1), 1)
        copies = interval[0] > max(most_natural, min(most_there * ratio, 1.0), 0.01)
        details = {
            "longest_run": float(runs.max()),
            "mean_run": float(runs.mean()),
            "held_out": float((natural >= RUN).mean()),
            "held_out_longest_run": float(natural.max()),
            "held_out_mean_run": float(natural.mean()),
            "expected": min(1.0, float(there.mean()) * ratio),
        }
        verdict = (
            f"{'It copies' if copies else 'No sign of copying'}; the longest run is {runs.max()} notes, and"
            f" {details['held_out']:.1%} of held-out pieces have {RUN} notes in a row of a training piece."
        )
        return Measured(float((runs >= RUN).mean()), interval, details=details, verdict=verdict)
