"""Train a small generative model on your own data, ship it as one ONNX file, generate with one call.

    import aigc_sdk as sdk

    digits = sdk.generate("digits-vae", 16, seed=7)
    digits.save("out")

A model is a pure function from seeds and controls to content, and it is one ONNX file.
"""

import importlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_sdk import errors
from aigc_sdk.errors import missing_package
from aigc_sdk.files import as_path
from aigc_sdk.forking import unforked

if TYPE_CHECKING:
    from aigc_image.item import Image
    from aigc_music.item import Music
    from aigc_sdk.card import ModelCard
    from aigc_sdk.contents import Contents
    from aigc_sdk.evaluation import Report, evaluate, measure
    from aigc_sdk.evaluator import Score
    from aigc_sdk.exporter import ExportReport
    from aigc_sdk.generation import Model, agenerate, generate, generate_iter, load, models, plugins, stream
    from aigc_sdk.hookspecs import hookimpl
    from aigc_sdk.specs import (
        EvaluatorSpec,
        ExporterSpec,
        FamilySpec,
        GeneratorSpec,
        MeasureSpec,
        ModalitySpec,
        ModelFile,
        ModelSpec,
        ReaderSpec,
    )
    from aigc_sdk.training import Run
    from aigc_text.item import Text

    __version__: str

__all__ = [
    "Contents",
    "EvaluatorSpec",
    "ExporterSpec",
    "FamilySpec",
    "GeneratorSpec",
    "Image",
    "MeasureSpec",
    "ModalitySpec",
    "Model",
    "ModelCard",
    "ModelFile",
    "ModelSpec",
    "Music",
    "ReaderSpec",
    "Report",
    "Score",
    "Text",
    "agenerate",
    "errors",
    "evaluate",
    "export",
    "generate",
    "generate_iter",
    "hookimpl",
    "load",
    "measure",
    "models",
    "plugins",
    "reproduce",
    "run",
    "stream",
    "train",
]


def train(
    family: str,
    data: Any,
    *,
    out: str | os.PathLike[str],
    seed: int = 0,
    resume: bool = False,
    init: "Run | str | os.PathLike[str] | None" = None,
    **config: Any,
) -> "Run":
    """Train a model of a family on data and finish with verified model files in `out`.

    `out` becomes a run folder: `model.onnx` (the first task), `model.TASK.onnx`, their cards, `run.json`
    (config, data fingerprint, environment), `metrics.jsonl`, `samples/` and `checkpoint.safetensors`, and
    `left_out.txt` when files of the data were left out.

    A training that was killed, or stopped by Ctrl-C or SIGTERM (which save a checkpoint first), goes on with the
    same call and `resume=True`: on the same machine to the very weights that it would have had. Only a limit in
    `minutes` depends on the clock. `resume=True` is right for a first start too: in a folder that is empty or not
    there the training begins, and of one that is finished the run is returned, so that a restart script can always
    pass it.

    Args:
        family: the name of a family, for example "vae".
        data: for a family of images an `.npz`, `.npy` or IDX file, a folder of images (sub-folders are labels), a
            `.csv`, `.tsv` or `.parquet` table of images and labels, a file that a plugin reads, an array uint8 (n,
            height, width, channels), or a pair of such an array and its labels (n,). For one of texts a `.txt`,
            `.jsonl` or `.csv` file, a folder of these, or a list of texts. For one of music MIDI, ABC or MusicXML, a
            folder of these, or a list of `aigc_music.data.Piece`.
        out: a folder that does not exist yet, or is empty; to resume, a run folder.
        seed: of the weights, the order of the data and the noise in training.
        resume: go on with the run in `out`, which has to be of the same family, config, seed and data.
        init: a run, its folder, a model file or the name of a ready-made model, whose averaged weights to begin with
            where they fit by name and shape; what did not fit is logged, and stands in `run.json`.
        config: the family's options, for example `epochs=5`; `aigc train FAMILY --options` lists them.

    Raises:
        MissingPackage: the `train` extra is not installed, or for music `music`; says the pip line.
        UnknownName: no such family, or no such option of it.
        InvalidConfig: an option of the wrong type or out of range, or another one than that of the run to resume.
        InvalidData: the data cannot be read, or not by this family.
        InvalidRequest: nothing of `init` fits.
        StorageError: `out` is not empty, or there is no run in it to resume; or a file cannot be written.
        TrainingFailed: training stopped without a usable model, or the checkpoint to resume is broken or gone.
        Interrupted: Ctrl-C or SIGTERM; a KeyboardInterrupt too.
        PluginError: the family, or what reads the data, is a plugin's and failed.
        ExportFailed: an exported file did not pass its checks.

    Example:
        >>> import tempfile, numpy as np, aigc_sdk as sdk
        >>> rows, columns = np.indices((8, 8))
        >>> stripes = np.stack([(rows + i * columns) % 8 * 36 for i in range(99)]).astype("uint8")
        >>> folder = tempfile.mkdtemp() + "/stripes"
        >>> run = sdk.train("gan", stripes, out=folder, steps=4, latent=4, width=8)
        >>> sorted(run.models)
        ['generate', 'interpolate']
        >>> len(sdk.generate(folder, 4, seed=7))
        4
    """
    folder = as_path(out, "out")
    run: Run = _training().train(family, data, out=folder, seed=seed, resume=resume, init=init, config=config)
    return run


def export(
    run: "Run | str | os.PathLike[str]",
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    format: str = "onnx",  # noqa: A002 - the word that users type
) -> Path:
    """Write one task of a finished run to a file, after verifying it, and return the path.

    Args:
        run: a Run, or the folder of one.
        path: the file to write; its card is written beside it as NAME.card.json.
        task: which task; without it, the family's first.
        format: the name of an exporter.

    Raises:
        MissingPackage: the `train` extra is not installed; says the pip line.
        UnknownName: no such task or format.
        ExportFailed: the file did not pass its checks; nothing was written.
        PluginError: the family or the exporter is a plugin's and failed.
        StorageError: the file cannot be written.

    Example:
        >>> import aigc_sdk as sdk
        >>> sdk.export("no-run-here", "model.onnx")
        Traceback (most recent call last):
        aigc_sdk.errors.StorageError: no-run-here is not a run folder: Cannot read no-run-here/run.json: ...
    """
    report: ExportReport = _training().export(run, as_path(path, "path"), task=task, file_format=format)
    return report.path


def reproduce(
    path: str | os.PathLike[str],
    *,
    model: "str | os.PathLike[str] | Model | None" = None,
    device: str = "auto",
    **controls: Any,
) -> "Contents":
    """Make the item of a saved file again, from the provenance that it carries, and compare the two.

    A file of pixels that differ within the tolerance of golden samples, as another processor may make them, is
    reproduced too; a warning is logged.

    Args:
        path: a PNG or a MIDI file, which carry their provenance inside, or another image, a text, or a piece as
            .wav, with its provenance beside as PATH.json.
        model: what made it, as in `aigc_sdk.load`; without it, the ready-made model of that name.
        device: as in `aigc_sdk.load`.
        controls: images and masks that the item was made from; the file holds only their hashes.

    Returns:
        The one item, made again.

    Raises:
        NotReproduced: what was made again differs, and by how much; or the model is another than the one then.
        InvalidProvenance: the file has no provenance, or a broken or forged one.
        UnknownName: no ready-made model of that name, and none was given.
        InvalidRequest: an image control is missing, or is another than the one then.
        StorageError, InvalidModel, Refused, ...: as in `aigc_sdk.load` and `aigc_sdk.generate`.

    Example:
        >>> import tempfile
        >>> import aigc_sdk as sdk
        >>> paths = sdk.generate("digits-vae", 4, seed=7).save(tempfile.mkdtemp())
        >>> sdk.reproduce(paths[3])[0].seed == sdk.generate("digits-vae", 4, seed=7)[3].seed
        True
    """
    from aigc_sdk import reproduction
    from aigc_sdk.likeness import IDENTICAL

    contents, measured = reproduction.reproduce(path, model=model, device=device, controls=controls)
    if measured != IDENTICAL:
        logging.getLogger("aigc_sdk").warning("%s was reproduced within the tolerance: %s", path, measured)
    return contents


def run(recipe: str | os.PathLike[str], *, data: Any = None, out: str | os.PathLike[str] | None = None) -> "Run":
    """Run the stages of a recipe: train, evaluate, write the scores into the card, and copy the model files.

    `docs/recipes.md` lists what a recipe may say. It is checked before anything begins, as far as can be known without
    the data. One that was interrupted is run again in the same way, and goes on: what is done is not done again.

    Args:
        recipe: a TOML file.
        data: what to train on, as in `aigc_sdk.train`, in the place of what the recipe names.
        out: the run folder, in the place of the recipe's.

    Returns:
        The finished run; its folder holds the model files and, once evaluated, report.json and report.html.

    Raises:
        StorageError: the recipe cannot be read, or something cannot be written.
        InvalidConfig: it is no TOML, or a value is missing, of the wrong type or out of range.
        UnknownName: a key, family, option, metric or task that there is not.
        InvalidRequest: the recipe names no path of its data, and none was given.
        MissingPackage, InvalidData, TrainingFailed, ...: as in `aigc_sdk.train` and `aigc_sdk.evaluate`.

    Example:
        >>> import pathlib, tempfile
        >>> import aigc_sdk as sdk
        >>> path = pathlib.Path(tempfile.mkdtemp(), "digits.toml")
        >>> _ = path.write_text("train.famliy = 'vae'")
        >>> sdk.run(path)
        Traceback (most recent call last):
        aigc_sdk.errors.UnknownName: There is no key of [train] in digits.toml 'famliy'. Did you mean 'family'? ...
    """
    from aigc_sdk import recipe as recipes

    return recipes.run(recipe, data=data, out=out)


# Where the rest is. It is imported when it is first used, so that a program pays for what it uses alone.
_LATER = {
    "ModelCard": "aigc_sdk.card",
    "Score": "aigc_sdk.evaluator",
    "hookimpl": "aigc_sdk.hookspecs",
    "Contents": "aigc_sdk.contents",
    "Image": "aigc_image.item",
    "Music": "aigc_music.item",
    "Text": "aigc_text.item",
    **dict.fromkeys(("Report", "evaluate", "measure"), "aigc_sdk.evaluation"),
    **dict.fromkeys(
        ("Model", "agenerate", "generate", "generate_iter", "load", "models", "plugins", "stream"),
        "aigc_sdk.generation",
    ),
    **dict.fromkeys(
        (
            "EvaluatorSpec",
            "ExporterSpec",
            "FamilySpec",
            "GeneratorSpec",
            "MeasureSpec",
            "ModalitySpec",
            "ModelFile",
            "ModelSpec",
            "ReaderSpec",
        ),
        "aigc_sdk.specs",
    ),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from aigc_sdk.specs import sdk_version

        return sdk_version()
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with unforked:
        value = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


def _training() -> Any:
    try:
        import aigc_sdk.training
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("aigc_"):
            raise
        raise missing_package("Training", error.name.partition(".")[0], "train") from error
    return aigc_sdk.training
