"""Modality: one kind of content, such as images: which arrays it is made of, and which items come of them.

A plugin brings one by the hook `aigc_register_modalities`; the core knows none by name.
"""

# ruff: noqa: ARG002 - a modality is asked with the card's output, whether that matters to it or not
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.contents import Contents, Item, Origin
from aigc_sdk.errors import InvalidRequest, PluginError, blamed
from aigc_sdk.exhibits import Exhibit
from aigc_sdk.files import write_bytes
from aigc_sdk.forking import unforked
from aigc_sdk.likeness import Likeness, Made, compare_items
from aigc_sdk.registry import default_registry

if TYPE_CHECKING:  # what is looked at, which a modality does not make
    from aigc_sdk.card import OutputPart, OutputSpec
    from aigc_sdk.kinds import ControlKind

Array = NDArray[Any]


class Modality(ABC):
    """One kind of content. Importing the module that defines it imports numpy at most.

    Attributes:
        name: what cards say.
        plural: what messages call such items.
        item: the class of what comes out.
        filler: what stands in arrays of variable length behind the end of each item.
        has_words: `str` of an item says all of it.
        has_labels: data of this kind may have labels.
        samples: how many items a training shows of itself.
        facets: where the classes are that read, learn from, compare and reproduce such items, imported when they are
            first asked for: "module:Class" of "data", "training", "evaluation", "reproduction" and "examples".
    """

    name: ClassVar[str]
    plural: ClassVar[str]
    item: ClassVar[type[Item]]
    filler: ClassVar[float] = 0
    has_words: ClassVar[bool] = False
    has_labels: ClassVar[bool] = True
    samples: ClassVar[int] = 8
    facets: ClassVar[Mapping[str, str]] = {}

    @property
    def kinds(self) -> "tuple[type[ControlKind], ...]":
        """The control kinds that it brings."""
        return ()

    @property
    def contents(self) -> type[Contents]:
        """What many items are."""
        return self.item.contents or Contents

    @abstractmethod
    def check_output(self, output: "OutputSpec") -> None:
        """Raise ValueError, in words, where no content of this kind has such arrays.

        It is asked at every load, so that it has to be quick.
        """

    def implied_parts(self, output: "OutputSpec") -> tuple["OutputPart", ...]:
        """Return the outputs besides `content` that every model of this kind has, whatever its card says."""
        return ()

    def check_values(self, output: "OutputSpec", parts: Mapping[str, Array]) -> None:  # noqa: B027 - most have no more to check
        """Raise ValueError where values of the right shapes and within their bounds cannot be.

        Args:
            output: what the card says.
            parts: by name, (n, *shape) each.
        """

    def make(self, data: Array, seed: int, origin: Origin, controls: tuple[Any, ...], parts: Mapping[str, Any]) -> Item:
        """Return one item.

        Args:
            data: what the model made, as long as the item is.
            seed: the item's own.
            origin: what made it; `origin.card.output.attributes` are the constants of the model.
            controls: the values of the origin's controls.
            parts: what was made besides, by name.
        """
        return self.item(data, seed, origin, controls, parts)

    def likeness(self, made: Sequence[Made], wanted: Sequence[Made], output: "OutputSpec") -> Likeness:
        """Compare items with those that they should be: those in the card, of eager torch, or of a stream.

        Args:
            made: the items.
            wanted: as many, at least one; without parts they are compared by their contents.
            output: what the card says.
        """
        return compare_items(made, wanted, has_length=output.length, plural=self.plural)

    def streamed(self, data: Array, output: "OutputSpec") -> Any:
        """Return what `stream` yields of a part of an item."""
        return data

    def respelled(self, choice: str) -> str:
        """Return the name that a control's choice has, for another one that people give it."""
        return choice

    def write_samples(self, contents: Contents, path: Path) -> None:
        """Write the samples of a training: all in one picture, if there is one, or each as the file that it is.

        Args:
            contents: the samples.
            path: without a suffix.
        """
        if overview := contents.overview():
            write_bytes(path.with_suffix(overview.suffix), overview.data)
            return
        for i, item in enumerate(contents):
            item.save(path.with_name(f"{path.name}-{i}{item.suffixes[0]}"))

    @property
    def data(self) -> "ModalityData":
        """What reads such items to train on; raises PluginError where there is nothing."""
        facet: ModalityData = self._facet("data", "read")
        return facet

    @property
    def training(self) -> "ModalityTraining":
        """What makes batches of such items; raises PluginError where there is nothing."""
        facet: ModalityTraining = self._facet("training", "learned from")
        return facet

    @property
    def evaluation(self) -> "ModalityEvaluation":
        """What brings items to the form in which they are compared; raises PluginError where there is nothing."""
        facet: ModalityEvaluation = self._facet("evaluation", "evaluated")
        return facet

    @property
    def reproduction(self) -> "ModalityReproduction":
        """What compares files with items that are made again; raises PluginError where there is nothing."""
        facet: ModalityReproduction = self._facet("reproduction", "reproduced")
        return facet

    @property
    def examples(self) -> "ModalityExamples":
        """What makes small items for checks; raises PluginError where there is nothing."""
        facet: ModalityExamples = self._facet("examples", "made for checks")
        return facet

    def _facet(self, name: str, what: str) -> Any:
        if name not in self.facets:
            raise PluginError(
                f"{self.plural.capitalize()} cannot be {what}: the modality {self.name!r} does not say how."
            )
        module, _, attribute = self.facets[name].partition(":")
        with unforked, blamed(f"The modality {self.name!r} cannot be {what}"):
            return getattr(import_module(module), attribute)()


class Dataset(Protocol):
    """Items to learn from, with labels or without.

    Attributes:
        name: what people call it.
        n: how many items.
        labels: int64 (n,), indices in label_names, or None.
        label_names: the names of the classes.
        is_stream: whether the items are pieces of one long sequence, `codes` int32, of which each begins at `starts`.
        fingerprint: the sha256 of all that it holds.
        report: what reading it found, a `DataReport`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def labels(self) -> NDArray[np.int64] | None: ...  # noqa: D102
    @property
    def label_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def is_stream(self) -> bool: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def report(self) -> Any: ...  # noqa: D102

    def split(self, validation: float, test: float) -> Mapping[str, NDArray[np.int64]]:
        """Return the rows of "train", "validation" and "test"; copies of an item stay on one side."""

    def spec(self, train: NDArray[np.int64]) -> Any:
        """Return the `DataSpec` of the training part, of these rows."""

    def items(self, rows: NDArray[np.int64]) -> Any:
        """Return the items of these rows, as metrics compare them."""


class ModalityTraining(ABC):
    """How items become what a family learns from. It may import torch.

    `unit` is what the log of a training counts.
    """

    unit: ClassVar[str] = "items"

    @abstractmethod
    def batch(self, data: Any, rows: NDArray[np.int64], device: Any, options: Any, *, varied: bool) -> dict[str, Any]:
        """Return the tensors of some items, without their labels.

        Args:
            data: the data set.
            rows: int64 (n,), which items.
            device: torch's, to put them on.
            options: of the family; None for none.
            varied: vary them as the options say, by torch's random numbers.
        """

    def weight(self, batch: Mapping[str, Any]) -> int:
        """Return how much a batch counts in a mean of validations: its items, or what they are made of."""
        return len(next(iter(batch.values())))

    def fed(self, control: Any, data: Any, rows: NDArray[np.int64]) -> list[Any] | None:
        """Return what to feed a control that has no default, made of these items; None where the data has nothing.

        Raises:
            ValueError: it has what the control does not take; says in words why.
        """
        return None


class ModalityData(ABC):
    """How data of a kind of content is read."""

    @abstractmethod
    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> Any:
        """Read a data set.

        Args:
            source: what a user gives: a path, or the items themselves.
            config: the options of a family, as its card or run keeps them; None where there is no model.
            trains: for a training, which may take what only a training needs, such as items in several forms.

        Raises:
            InvalidData, InvalidRequest, MissingPackage, StorageError, PluginError: as `aigc_sdk.train`.
        """

    def dump(self, details: Any) -> dict[str, Any]:
        """Return the details of a `DataSpec` as JSON can hold them, under names that run.json has not yet."""
        return {}

    def load(self, values: Mapping[str, Any]) -> Any:
        """Return the details that `dump` made these values of; raises ValueError for what it never makes."""
        if values:
            raise ValueError(f"there is no such field as {min(values)}")
        return None


class ModalityEvaluation(ABC):
    """How generated items are compared with real ones: by features, numbers that a measure makes of each, or as such.

    `has_features`: by features, where a metric does not ask for the items. `on_page`: items of each side on a page.
    """

    has_features: ClassVar[bool] = False
    on_page: ClassVar[int] = 8

    @abstractmethod
    def items_of(self, given: Any) -> Any:
        """Return contents as metrics compare them: an array (n, ...) or a tuple; None where they are of another kind.

        Args:
            given: Contents, a list or a tuple of items, or an array; never empty.

        Raises:
            InvalidRequest: they are of this kind, and cannot be compared.
        """

    @abstractmethod
    def to_array(self, given: Any) -> Array | None:
        """Return contents as a measure takes them, (n, ...); None where they are of another kind."""

    def known(self, items: Sequence[Any], dataset: Any) -> Sequence[Any]:
        """Return training items as copies are looked for in them."""
        return items

    def check_form(self, dataset: Any, shape: tuple[int, ...] | None, what: str) -> None:  # noqa: B027 - most have none
        """Raise InvalidData where a data set is not of the form of the generated items.

        Args:
            dataset: the reference, or what the model was trained on.
            shape: of one generated item; None where they are of no one shape.
            what: what messages call the data set.
        """

    def extractor(self, shape: tuple[int, ...]) -> str:
        """Return the name of the measure that makes features of items of a shape, where nobody asks for another.

        Raises:
            InvalidRequest: there is none.
        """
        raise InvalidRequest(f"No measure makes features of items of the shape {shape}; give one as extractor.")

    @abstractmethod
    def exhibits(self, items: Sequence[Any], caption: str) -> list[Exhibit]:
        """Return what a page shows of some items.

        Args:
            items: as `items_of` returns them, or a data set has them.
            caption: what they are, such as "generated items".
        """


class ModalityExamples(ABC):
    """Small items for the checks of `aigc_sdk.testing`."""

    @abstractmethod
    def data(self, n: int, size: int, classes: int) -> tuple[Any, NDArray[np.int64]]:
        """Return n different items to train on, as `aigc_sdk.train` takes them, and labels int64 (n,).

        Args:
            n: how many.
            size: about how long or wide an item is.
            classes: of the labels, by how the items were made.
        """

    @abstractmethod
    def contents(self, output: "OutputSpec", n: int, random: np.random.Generator) -> Array:
        """Return n different contents as a measure takes them, (n, ...)."""


class ModalityReproduction(ABC):
    """How a saved item is compared with the one that is made again."""

    def provenance(self, path: Path) -> str | bytes | None:
        """Return the provenance inside of a file that has one of the item's suffixes.

        None says that it lies beside, or that the file is of another modality with the same suffix.

        Raises:
            InvalidProvenance: the file is broken.
        """
        return None

    @abstractmethod
    def compare(self, path: Path, made: Item) -> str:
        """Return what was measured: IDENTICAL, or in words what differs within rounding.

        Args:
            path: of a file that says how it was made.
            made: the item that was made again.

        Raises:
            NotReproduced: it is another item.
            InvalidProvenance: such a file cannot be compared.
        """


def find_modality(name: str) -> Modality:
    """Return the modality of that name.

    Raises:
        UnknownName: no plugin brings it.
        PluginError: the plugin that brings it fails.

    Example:
        >>> find_modality("text").plural
        'texts'
    """
    modality: Modality = default_registry().modality(name)
    return modality


def usable_modalities() -> Iterator[Modality]:
    """Yield the modalities that can be imported; one that fails harms no other, and `aigc doctor` says why it does."""
    for name in default_registry().names("modality"):
        try:
            modality = find_modality(name)
        except PluginError:
            continue
        yield modality


def package_of(name: str) -> str:
    """Return the distribution that brings a modality, as cards name it; an empty text for the SDK's own."""
    return default_registry().package_of(name)


def lengths_of(contents: Array, filler: float) -> NDArray[np.int64]:
    """Return how long contents of variable length are, by the filler behind the end of each.

    Args:
        contents: (n, t) or (n, t, k).
        filler: of the modality.

    Example:
        >>> lengths_of(np.array([[104, 105, -1], [-1, -1, -1]]), -1), lengths_of(np.ones((1, 3, 6), np.float32), 0)
        (array([2, 0]), array([3]))
    """
    is_there = (contents != filler).reshape(*contents.shape[:2], -1).any(2)
    places = np.arange(1, contents.shape[1] + 1)
    return np.asarray((is_there * places).max(1, initial=0), np.int64)


def trimmed(contents: Array, filler: float) -> Array:
    """Return contents of variable length without what is behind the end of the longest, but for one place.

    Example:
        >>> trimmed(np.array([[104, 105, -1], [-1, -1, -1]]), -1).tolist()
        [[104, 105], [-1, -1]]
    """
    return contents[:, : max(1, lengths_of(contents, filler).max(initial=0))]
