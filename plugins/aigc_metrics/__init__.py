"""The metrics, and the measures that they look at contents with."""

from collections.abc import Callable

from aigc_sdk import EvaluatorSpec, MeasureSpec, hookimpl

_METRICS = {
    "frechet": ("", "frechet:Frechet", "distance between the distributions of the features (Heusel et al. 2017)"),
    "precision": ("", "manifold:Precision", "share of generated items among the real ones (Kynkaanniemi et al. 2019)"),
    "recall": ("", "manifold:Recall", "share of real items that the model covers (Kynkaanniemi et al. 2019)"),
    "copying": (
        "",
        "copying:Copying",
        "share of generated items on training items (after Meehan et al. 2020)",
    ),
    "verbatim": ("text", "texts:Verbatim", "share of the windows of generated texts that stand in training texts"),
    "ngrams": ("text", "texts:NGrams", "divergence of the frequencies of runs of three characters (Lin 1991)"),
    "quotes": (
        "music",
        "music:Quotes",
        "share of pieces with 24 notes in a row of a training piece, in any key",
    ),
    "scale": (
        "music",
        "music:ScaleConsistency",
        "share of pieces that keep to their key as nine in ten real ones do",
    ),
    "pitches": ("music", "music:PitchClasses", "distance of the pitch class histograms (Yang & Lerch 2020)"),
    "durations": ("music", "music:Durations", "distance of the histograms of note durations (Yang & Lerch 2020)"),
    "density": ("music", "music:Density", "distance of the notes per quarter note"),
    "polyphony": ("music", "music:Polyphony", "distance of the notes that sound at once (after Dong et al. 2020)"),
}


@hookimpl
def aigc_register_evaluators(register: Callable[[EvaluatorSpec], None]) -> None:
    """Declare the metrics."""
    for name, (modality, target, summary) in _METRICS.items():
        register(EvaluatorSpec(name=name, target=f"aigc_metrics.{target}", summary=summary, modality=modality))


@hookimpl
def aigc_register_measures(register: Callable[[MeasureSpec], None]) -> None:
    """Declare the feature extractor for images of any size."""
    register(
        MeasureSpec(
            name="efficientnet-lite0",
            target="aigc_metrics.efficientnet:measure_for",
            summary="1280 features of images of any size, of a network trained on ImageNet; made on first use",
            license="Apache-2.0",
            extra="evaluate",
        )
    )
