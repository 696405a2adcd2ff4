"""What a plugin may provide. These docstrings are the contract.

A plugin is a module (or any object) named by an entry point of the group `aigc_sdk`. It implements any
of these hooks with `@aigc_sdk.hookimpl`. The register hooks are called once, when the first name is
looked up; they get a callback and hand it specs. They should import nothing heavy: what a spec names
is imported when a user asks for it.

    import aigc_sdk as sdk

    @sdk.hookimpl
    def aigc_register_families(register):
        register(sdk.FamilySpec(name="flow", target="my_package.family:Flow", modalities=("image",)))

A hook is a plain function that takes those of its arguments that it needs. A plugin that fails while it is loaded is
recorded with its reason (`aigc plugins` shows it) and harms no other. A policy hook (before, after) that fails, or that
calls `sys.exit`, stops the request with PluginError: without its word nothing goes on. `docs/plugins.md` builds three
plugins; `aigc_sdk.testing.check_plugin` checks one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

from aigc_sdk.specs import (
    EvaluatorSpec,
    ExporterSpec,
    FamilySpec,
    GeneratorSpec,
    MeasureSpec,
    ModalitySpec,
    ModelSpec,
    ReaderSpec,
)

if TYPE_CHECKING:
    from aigc_sdk.contents import Contents
    from aigc_sdk.request import Request

GROUP = "aigc_sdk"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def aigc_register_modalities(register: Callable[[ModalitySpec], None]) -> None:
    """Declare kinds of content: what models may make, and be given. Call `register` once for each."""


@hookspec
def aigc_register_families(register: Callable[[FamilySpec], None]) -> None:
    """Declare families: kinds of models that `sdk.train` can train. Call `register` once for each."""


@hookspec
def aigc_register_generators(register: Callable[[GeneratorSpec], None]) -> None:
    """Declare generators that are not ONNX files of the contract. Call `register` once for each."""


@hookspec
def aigc_register_exporters(register: Callable[[ExporterSpec], None]) -> None:
    """Declare file formats that `sdk.export` can write. Call `register` once for each."""


@hookspec
def aigc_register_readers(register: Callable[[ReaderSpec], None]) -> None:
    """Declare readers of files of training data. Call `register` once for each.

    A reader is a function: its target, called with the `pathlib.Path` of a file that ends in one of its suffixes,
    gives (or is a generator of) pairs `(image, label)`. An image is uint8 (height, width) or (height, width, 1, 3 or
    4), or a Pillow image; images may differ in size and channels, which are brought to one form as those of a folder
    are. A label is a text, a whole number, or None; all of them or none. Give one pair at a time, so that a file
    larger than memory can be read, and the same pairs each time: a reader may be called more than once for a file.

    Files that the SDK reads itself (.npz, .npy, IDX, .csv, .tsv, .parquet) and folders never come to a reader. What a
    reader raises stops the training with PluginError.
    """


@hookspec
def aigc_register_evaluators(register: Callable[[EvaluatorSpec], None]) -> None:
    """Declare metrics that `sdk.evaluate` can measure. Call `register` once for each."""


@hookspec
def aigc_register_models(register: Callable[[ModelSpec], None]) -> None:
    """Declare ready-made models and measures inside the plugin's package. Call `register` once for each."""


@hookspec
def aigc_register_measures(register: Callable[[MeasureSpec], None]) -> None:
    """Declare measures that are made on first use. Call `register` once for each; their names are those of models."""


@hookspec
def aigc_before_generate(request: "Request") -> None:
    """See every request after it was validated and before anything is made.

    Raise `aigc_sdk.errors.Refused` to stop it; the caller gets that error. Any other return goes on.
    """


@hookspec
def aigc_after_generate(request: "Request", contents: "Contents") -> "Contents | None":
    """See everything that was made, before the caller does.

    Return None to pass the contents on, or other contents of the same n items in the same order;
    raise `aigc_sdk.errors.Refused` to hold all of them back. Plugins are asked one after the other,
    in the order of their names; each gets what the one before passed on.
    """
