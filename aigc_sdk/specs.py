"""Specs: what a plugin declares. A spec is data; making or listing one imports no heavy code."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aigc_sdk.errors import MissingPackage, PluginError

API_VERSION = 1

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class _Spec:
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name: lower-case letters, digits, '-', '_' and '.'")


@dataclass(frozen=True)
class _CodeSpec(_Spec):
    """A spec whose thing is code: `target` is "module:attribute", imported when it is first used.

    `extra` is the extra of `distribution` that brings what the target imports.
    """

    target: str
    summary: str = ""
    extra: str | None = None
    distribution: str = "aigc-sdk"
    api_version: int = API_VERSION

    def resolve(self) -> Any:
        """Import and return the target.

        Raises:
            MissingPackage: it needs a package that is not installed; says the pip line.
            PluginError: the target is not there, or fails when imported.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (Exception, SystemExit) as error:  # a plugin may fail in any way
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and self.extra and not f"{module_name}.".startswith(f"{missing}."):
                raise missing_package(f"{self.name!r}", missing, self.extra, self.distribution) from error
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{self.name!r} cannot be loaded from {self.target!r}: {reason}.") from error


@dataclass(frozen=True)
class FamilySpec(_CodeSpec):
    """A family of models that can be trained; the target is a subclass of `aigc_sdk.training.Family`.

    Example:
        >>> FamilySpec(name="flow", target="my_package.family:Flow", modalities=("image",), extra="train").name
        'flow'
    """

    modalities: tuple[str, ...] = ()


@dataclass(frozen=True)
class GeneratorSpec(_CodeSpec):
    """A generator that is not one of our ONNX files; the target, called with the task, gives a `Generator`.

    Example:
        >>> GeneratorSpec(name="noise", target="my_package.noise:Noise").tasks
        ('generate',)
    """

    tasks: tuple[str, ...] = ("generate",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tasks, tuple) or not self.tasks:
            raise ValueError(f"{self.name!r} has the tasks {self.tasks!r}; give a tuple of at least one name")


@dataclass(frozen=True)
class ExporterSpec(_CodeSpec):
    """A file format for finished models; the target is a subclass of `aigc_sdk.exporter.Exporter`.

    Example:
        >>> ExporterSpec(name="coreml", target="my_package.exporter:CoreML", suffix=".mlpackage").suffix
        '.mlpackage'
    """

    suffix: str = ""


@dataclass(frozen=True)
class ReaderSpec(_CodeSpec):
    """A reader of files of training data, found by the end of their names.

    The target, called with the path of a file, gives pairs (image, label) one after the other: see the hook
    `aigc_register_readers`.

    Example:
        >>> ReaderSpec(name="dicom", target="my_package.dicom:read", suffixes=(".dcm",)).suffixes
        ('.dcm',)
    """

    suffixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        are_suffixes = isinstance(self.suffixes, tuple) and all(str(each)[:1] == "." for each in self.suffixes)
        if not are_suffixes or not self.suffixes:
            raise ValueError(f"{self.name!r} has the suffixes {self.suffixes!r}; give a tuple such as ('.dcm',)")


@dataclass(frozen=True)
class ModelFile:
    """One file of a ready-made model: its path inside the plugin's package and the sha256 of its bytes.

    The file was checked when the plugin was made, so bytes of this hash are run without checking again.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class ModelSpec(_Spec):
    """A ready-made model: ONNX files, one for each task, inside the import package `package`.

    The first task is what a caller gets who names none.

    Example:
        >>> file = ModelFile("models/cats.onnx", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
        >>> list(ModelSpec(name="cats", package="my_package", files={"generate": file}).files)
        ['generate']
    """

    package: str
    files: Mapping[str, ModelFile]
    summary: str = ""
    license: str = ""
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.files:
            raise ValueError(f"{self.name!r} has no files")


def missing_package(what: str, module: str, extra: str, distribution: str = "aigc-sdk") -> MissingPackage:
    """Make the error for an optional package that is not there, with the line that installs it."""
    return MissingPackage(
        f"{what} needs the package {module!r}, which is not installed. Run: pip install '{distribution}[{extra}]'"
    )


@lru_cache(maxsize=1)
def sdk_version() -> str:
    """Return the version of the installed SDK."""
    try:
        return version("aigc-sdk")
    except PackageNotFoundError:
        return "0+unknown"
