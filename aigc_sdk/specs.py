"""Specs: what a plugin declares. A spec is data; making or listing one imports no heavy code."""

import hashlib
import importlib
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal

from aigc_sdk.errors import PluginError, missing_package, reason, shown
from aigc_sdk.forking import unforked

# The versions of the interfaces of plugins that this SDK takes; a spec says for which one it was written.
API_VERSION = 1
API_VERSIONS = range(1, API_VERSION + 1)

# The control kinds that are there without any plugin.
PLAIN_KINDS = frozenset(("choice", "number", "integer", "flag", "seed", "vector"))

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TARGET = re.compile(r"\w+(\.\w+)*:\w+")


@dataclass(frozen=True)
class _Spec:
    name: str

    def __post_init__(self) -> None:
        # A list of all that is installed shows these: a wrong one would break it for everybody.
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type in (str, int, str | None) and not isinstance(value, each.type):  # type: ignore[arg-type]  # it is no string here
                raise TypeError(f"{each.name} is {shown(value)}, not {getattr(each.type, '__name__', each.type)}")
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name: lower-case letters, digits, '-', '_' and '.'")


@dataclass(frozen=True)
class _CodeSpec(_Spec):
    """A spec whose thing is code: `target` is "module:attribute", imported when it is first used.

    `extra` is the extra of `distribution` that brings what the target imports; the target has to be a subclass
    of `base`, if the kind of spec names one.
    """

    base: ClassVar[str] = ""

    target: str
    summary: str = ""
    extra: str | None = None
    distribution: str = "aigc-sdk"
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _TARGET.fullmatch(self.target):
            raise ValueError(f"the target of {self.name!r} is {shown(self.target)}, not 'module:attribute'")

    def resolve(self) -> Any:
        """Import and return the target.

        Raises:
            MissingPackage, missing_package: it needs a package that is not installed; says the pip line.
            PluginError: the target is not there, is not of its kind, or fails when imported.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            with unforked:
                target = getattr(importlib.import_module(module_name), attribute)
            if self.base and self.base not in [f"{c.__module__}.{c.__name__}" for c in getattr(target, "__mro__", ())]:
                raise TypeError(f"{shown(target)} is no subclass of {self.base}")
            if not callable(target):
                raise TypeError(f"{shown(target)} cannot be called")
            return target
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may fail in any way
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and self.extra and not f"{module_name}.".startswith(f"{missing}."):
                raise missing_package(f"{self.name!r}", missing, self.extra, self.distribution) from error
            raise PluginError(f"{self.name!r} cannot be loaded from {self.target!r}: {reason(error)}.") from error

    def check(self) -> None:
        """Raise as `resolve` does."""
        self.resolve()


@dataclass(frozen=True)
class FamilySpec(_CodeSpec):
    """A family of models that can be trained; the target is a subclass of `aigc_sdk.training.Family`.

    Example:
        >>> FamilySpec(name="flow", target="my_package.family:Flow", modalities=("image",), extra="train").name
        'flow'
    """

    base: ClassVar[str] = "aigc_sdk.training.family.Family"

    modalities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _are_texts(self.modalities):
            raise ValueError(f"{self.name!r} has the modalities {shown(self.modalities)}; give a tuple of names")

    def resolve(self) -> Any:
        """Import and return the target; raises as for every spec, and PluginError when it is no whole family."""
        family = super().resolve()
        left = [name for name in dir(family) if getattr(getattr(family, name, None), "__isabstractmethod__", False)]
        tasks = getattr(family, "tasks", None)
        if left or not hasattr(getattr(family, "Config", None), "model_fields"):
            raise PluginError(f"The family {self.name!r} does not implement {', '.join(left) or 'Config'}.")
        if not isinstance(tasks, tuple) or not tasks or not all(isinstance(task, str) for task in tasks):
            raise PluginError(f"The family {self.name!r} has the tasks {shown(tasks)}; give a tuple of names.")
        if not isinstance(modality := getattr(family, "modality", None), str):
            raise PluginError(f"The family {self.name!r} has the modality {shown(modality)}; give its name.")
        if self.modalities and modality not in self.modalities:
            words = " and ".join(self.modalities)
            raise PluginError(f"The family {self.name!r} makes {modality}, and its spec says {words}.")
        return family


@dataclass(frozen=True)
class ModalitySpec(_CodeSpec):
    """A kind of content; the target is a subclass of `aigc_sdk.modality.Modality`, made without arguments.

    `kinds` are the names of the control kinds that it brings; `api_version` is that of the interface that it was
    written for, a number that its author writes down.

    Example:
        >>> ModalitySpec(name="tones", target="my_package.modality:Tones", kinds=("tone",), api_version=1).kinds
        ('tone',)
    """

    base: ClassVar[str] = "aigc_sdk.modality.Modality"

    kinds: tuple[str, ...] = ()
    api_version: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _are_texts(self.kinds):
            raise ValueError(f"{self.name!r} has the kinds {shown(self.kinds)}; give a tuple of names")
        if taken := sorted(PLAIN_KINDS.intersection(self.kinds)):
            raise ValueError(f"{self.name!r} has the kind {taken[0]!r}, which is one of the SDK's own")


@dataclass(frozen=True)
class GeneratorSpec(_CodeSpec):
    """A generator that is not one of our ONNX files; the target, called with the task, gives a `Generator`.

    Example:
        >>> GeneratorSpec(name="noise", target="my_package.noise:Noise").tasks
        ('generate',)
    """

    tasks: tuple[str, ...] = ("generate",)
    kind: ClassVar[str] = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _are_texts(self.tasks) or not self.tasks:
            raise ValueError(f"{self.name!r} has the tasks {shown(self.tasks)}; give a tuple of at least one name")


@dataclass(frozen=True)
class MeasureSpec(_CodeSpec):
    """A measure that is made on this machine, of weights that another package brings, for the contents at hand.

    The target, called with the shape of the contents (height, width, channels), gives the path of the `.onnx` file.

    Example:
        >>> MeasureSpec(name="big-net", target="my_package.big_net:convert", extra="evaluate").kind
        'measure'
    """

    license: str = ""
    kind: ClassVar[str] = "measure"
    tasks: ClassVar[tuple[str, ...]] = ("features",)


@dataclass(frozen=True)
class ExporterSpec(_CodeSpec):
    """A file format for finished models; the target is a subclass of `aigc_sdk.exporter.Exporter`.

    Example:
        >>> ExporterSpec(name="coreml", target="my_package.exporter:CoreML", suffix=".mlpackage").suffix
        '.mlpackage'
    """

    base: ClassVar[str] = "aigc_sdk.exporter.Exporter"

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
        # In lower case, as the names of files are compared with them.
        are_suffixes = _are_texts(self.suffixes) and all(
            each[0] == "." and each == each.lower() for each in self.suffixes
        )
        if not are_suffixes or not self.suffixes:
            raise ValueError(
                f"{self.name!r} has the suffixes {shown(self.suffixes)}; give a tuple such as ('.dcm',), in lower case"
            )


@dataclass(frozen=True)
class EvaluatorSpec(_CodeSpec):
    """A metric; the target is a subclass of `aigc_sdk.evaluator.Evaluator`, made without arguments.

    `modality` is what it measures, or "": features of whatever has them. None: the target is imported to find out.

    Example:
        >>> EvaluatorSpec(name="sharpness", target="my_package.sharpness:Sharpness", modality="image").name
        'sharpness'
    """

    base: ClassVar[str] = "aigc_sdk.evaluator.Evaluator"

    modality: str | None = None


@dataclass(frozen=True)
class ModelFile:
    """One file of a ready-made model: its path inside the plugin's package and the sha256 of its bytes.

    The file was checked when the plugin was made, so bytes of this hash are run without checking again.
    """

    path: str
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not isinstance(self.sha256, str):
            raise TypeError(f"a ModelFile of {shown(self.path)} and {shown(self.sha256)}; give two texts")


@dataclass(frozen=True)
class ModelSpec(_Spec):
    """A ready-made model or measure: ONNX files, one for each task, inside the import package `package`.

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
    kind: Literal["model", "measure"] = "model"
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        super().__post_init__()
        files = dict(self.files) if isinstance(self.files, Mapping) else {}
        if not files or not _are_texts((*files,)) or not all(isinstance(file, ModelFile) for file in files.values()):
            raise ValueError(f"the files of {self.name!r} are {shown(self.files)}; give a ModelFile for each task")
        if self.kind not in ("model", "measure"):
            raise ValueError(f"the kind of {self.name!r} is {shown(self.kind)}, not 'model' or 'measure'")

    def path(self, task: str) -> Path:
        """Return where the file of a task is.

        Raises:
            PluginError: the package is not there, or fails when imported.
        """
        try:
            return Path(str(importlib.resources.files(self.package))) / self.files[task].path
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may fail in any way
            raise PluginError(f"{self.name!r} is not in the package {self.package!r}: {reason(error)}.") from error

    def check(self) -> None:
        """Raise PluginError when a file is not there, or is not the one that was registered."""
        for task, file in self.files.items():
            path = self.path(task)
            try:
                found = hashlib.sha256(path.read_bytes()).hexdigest()
            except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
                raise PluginError(f"{self.name!r} has no file for {task}: {reason(error)}.") from error
            if found != file.sha256:
                raise PluginError(f"{path} of {self.name!r} has the sha256 {found}, not {file.sha256}.")


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(each, str) and each for each in values)


@lru_cache(maxsize=1)
def sdk_version() -> str:
    """Return the version of the installed SDK."""
    try:
        return version("aigc-sdk")
    except PackageNotFoundError:
        return "0+unknown"
