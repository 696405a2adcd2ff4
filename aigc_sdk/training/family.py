"""Family: how one kind of model is built, trained and turned into a function from seeds to content."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from aigc_sdk.card import Control, ModelCard, OutputSpec, StatePart
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import InvalidConfig, UnknownName, blamed

# What `training_step` and `validate` get: what `ModalityTraining.batch` of the modality makes, "labels" int64 (n,) when
# the data has labels, and where it is a stream "begins", bool (n,): whether the codes do not go on where those of the
# batch before ended.
Batch = dict[str, Tensor]

# What a family hands from one batch to the next: the state of a recurrent network, nothing otherwise. It may hold
# dicts, lists and tuples of detached tensors, numbers and texts, which is what a checkpoint can keep.
Carry = Any


# A training that is given no limit makes so many passes, in at least and at most so many steps.
_PASSES, _LEAST_STEPS, _MOST_STEPS = 20, 3000, 20_000

# Fewer steps than these teach most networks little.
_FEW_STEPS = 500


@dataclass(frozen=True)
class Losses:
    """What one training step returns: the loss to minimise, and its parts, which are only logged."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """One size of a step, out of which `aigc_sdk.training.budget` chooses what was left out.

    Attributes:
        options: for example {"batch_size": 16}.
        least_steps: a training of fewer steps of this size should take a smaller one; of the smallest size fewer are
            warned about.
    """

    options: Mapping[str, Any]
    least_steps: int


def split_at_commas(value: Any) -> Any:
    """Return a text as the names in it, for an option that takes several; anything else as it is.

    Example:
        >>> split_at_commas("flip, shift"), split_at_commas("")
        (('flip', 'shift'), ())
    """
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class FamilyConfig(BaseModel):
    """The options that every family has. Flags, help and the card are made from them.

    A modality may have more, such as `aigc_image.training.ImageFamilyConfig`, for the families that learn from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="name in the card; the run folder's if left out"
    )
    version: str = Field("0.1.0", description="version in the card")
    license: str = Field("unspecified", description="licence of the trained model, in the card")
    intended_use: str = Field("unspecified", description="what the model is meant for, in the card")

    epochs: int | None = Field(None, ge=1, description="stop after so many passes over the training data")
    steps: int | None = Field(
        None,
        ge=1,
        description="stop after so many steps, if that comes first; what suits the data without epochs and minutes",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="stop in time to end after so many minutes, if that comes first: reading, training, validation and"
        " checkpoints count, the model files come after",
    )
    batch_size: int | None = Field(
        None, ge=1, description="items in a batch; what suits the data and the budget if left out"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate; warmed up, then a half cosine to 0")
    warmup_steps: int = Field(
        200, ge=0, description="steps over which the learning rate rises from 0; a tenth of all at most"
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay per step of the average of the weights")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; none if left out")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="bfloat16 is mixed precision; auto takes it where the processor computes in it"
    )
    weights: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="what the model files hold weights in; float16 makes them half as large, int8 (with a scale for"
        " each unit) a quarter, and both round",
    )
    validation_fraction: float = Field(0.05, ge=0, lt=1, description="part of the data to validate on")
    test_fraction: float = Field(0.05, ge=0, lt=1, description="part of the data that training never sees")
    checkpoint_minutes: float = Field(5, gt=0, description="minutes between checkpoints")
    early_stop_epochs: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better validation, and export the best weights"
    )
    validation_steps: int | None = Field(
        None, ge=1, description="validate after every so many steps of a pass too, not only at its end"
    )
    keep_best: bool = Field(False, description="export the averaged weights of the best validation, not the last ones")
    balance_classes: bool = Field(
        False, description="draw every class equally often; label -1 of the model still draws as the data has them"
    )
    log_steps: int = Field(50, ge=1, description="steps between lines in metrics.jsonl")
    tensorboard: bool = Field(False, description="write TensorBoard's events into the run folder too")

    @property
    def keeps_best(self) -> bool:
        """Whether the best validation decides what is exported."""
        return self.keep_best or self.early_stop_epochs is not None


class Family(nn.Module):
    """How one kind of model is trained; VAE is one. A subclass is a leaf and implements every method here.

    The loop calls `build` once, then `training_step` for each phase of each step with the same batch, then
    `backward`, clips, and steps the optimizer of that phase's name. `sampler` is what gets exported.
    It is a torch module, so that weights, averaging and checkpoints need no code of a family's own. What decides how
    a training goes on has to be in its state dict, its optimizers, the carry or torch's own random numbers: then a
    training that was killed goes on to the same weights.

    Attributes:
        Config: its options.
        modality: what it makes, and is trained on.
        tasks: what its samplers do; the first is what a user gets who names none.
        measures: those of the tasks whose files are measures; their samplers are f(content) -> value, or
            f(content, length) -> value for texts.
        span: characters that a training step on a stream reads in each of its places.
        scores: the figures of a validation that belong into the card; all of them if None.
        network_options: those that decide which weights there are; where they are left out, a training that starts
            from other weights has theirs.
    """

    Config: ClassVar[type[FamilyConfig]]
    modality: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    measures: ClassVar[tuple[str, ...]] = ()
    span: int = 0
    scores: ClassVar[tuple[str, ...] | None] = None
    network_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def sizes(cls, config: Any, data: DataSpec) -> tuple[Size, ...]:  # noqa: ARG003 - for families that do
        """Return the sizes of a step that suit the data, the smallest first, for options that were left out.

        The last one is taken of which the budget holds its `least_steps`, or the first.

        Args:
            config: the options, those that were left out None.
            data: what the family would be built for.
        """
        return (Size({"batch_size": 128}, _FEW_STEPS),)

    @classmethod
    def usual_steps(cls, config: Any, data: DataSpec, pass_steps: int) -> int:  # noqa: ARG003 - for families that do
        """Return how many steps a training has that is given no limit.

        Args:
            config: the options, with the size of a step.
            data: what the family would be built for.
            pass_steps: steps of a pass over the training part.
        """
        return min(max(_PASSES * pass_steps, _LEAST_STEPS), _MOST_STEPS)

    @classmethod
    def fitted(cls, config: Any, data: DataSpec, steps: int) -> dict[str, Any]:  # noqa: ARG003 - for families that do
        """Return values for options that depend on how long the training is, such as warm-ups; none here.

        Options that were given keep their values.

        Args:
            config: the options, with the size of a step.
            data: what the family would be built for.
            steps: how many there will be, about.
        """
        return {}

    @abstractmethod
    def build(self, data: DataSpec) -> None:
        """Make the modules for this data; raise InvalidData when the family cannot model it."""

    def rows(self) -> dict[str, tuple[str, ...]]:
        """Return which row of which tensor belongs to what, by its name in the state dict; nothing here.

        Weights of another training are then copied row by row, to the rows of the same names: a vector follows its
        character, event or label. Buffers that list them belong here too, or they are copied as they are.

        Returns:
            A name for each row of the first dimension, such as "character 'a'"; none twice in a tensor.
        """
        return {}

    @classmethod
    def spec_of(cls, card: ModelCard, codes: Sequence[Tensor]) -> DataSpec | None:  # noqa: ARG003 - for families that do
        """Return data for which the network of a model file would be built; None here.

        Where a family says what its rows belong to, a training begins from a model file only with this.

        Args:
            card: of the file.
            codes: its tables of int32, among them the alphabet that it was trained with.
        """
        return None

    def recovered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - for families that do
        """Return weights that a model file of this network does not hold under their names; nothing here.

        Args:
            tensors: what it holds, in its order; of sums that were worked out beforehand under other names.
        """
        return {}

    @abstractmethod
    def optimizers(self) -> dict[str, Optimizer]:
        """Return an optimizer for each phase name."""

    @abstractmethod
    def phases(self, step: int) -> tuple[str, ...]:
        """Return the phases of a step, in order, for example ("all",)."""

    @abstractmethod
    def training_step(self, batch: Batch, phase: str, step: int, carry: Carry) -> tuple[Losses, Carry]:
        """Return the losses of one phase on one batch, and the carry for the next batch."""

    @abstractmethod
    def validate(self, batch: Batch) -> dict[str, float]:
        """Return figures on a validation batch, means over its items; the first is to be minimised."""

    def assess(self, step: int, means: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG002 - for families that do
        """Return figures of the averaged weights as a whole, besides the means of what `validate` gives; none here.

        They stand before those means, so that the first of them is what is to be minimised.

        Args:
            step: how many were made.
            means: over the validation part; none where there is no such part.
        """
        return {}

    @abstractmethod
    def controls(self, task: str) -> list[Control]:
        """Return the controls of a task."""

    @abstractmethod
    def output(self, task: str) -> OutputSpec:
        """Return what a task makes."""

    def state(self, task: str) -> tuple[StatePart, ...]:  # noqa: ARG002 - for families that stream
        """Return what a task that streams hands from call to call; nothing for others, so for most families."""
        return ()

    @abstractmethod
    def sampler(self, task: str) -> nn.Module:
        """Return f(seed, {name: control}) -> content, which is traced whole into ONNX.

        `seed` is int64 (n,); each control is (n, *shape) of its dtype, where only pixels, texts and music have a shape;
        content is (n, ...) as `output` says. Where that says so, it returns (content, length), and of music
        (content, length, tempo, meter, key), see `aigc_sdk.generator.written`. A task with a state is
        f(seed, controls, state) -> (content, length, ..., *state, finished), see `aigc_sdk.generator.start_state`. Row
        i of content may depend on row i of the inputs alone. Randomness comes from `aigc_sdk.training.random` and the
        seed.
        """


def parse_config(family: str, config_class: type[FamilyConfig], values: Mapping[str, Any]) -> FamilyConfig:
    """Check a family's options.

    Raises:
        UnknownName: there is no such option; has the nearest name.
        InvalidConfig: a value of the wrong type or out of range; says what is allowed.
    """
    for name in values:
        if name not in config_class.model_fields:
            raise UnknownName.of(f"option of the family {family}", name, config_class.model_fields)
    with blamed(f"The options of the family {family!r} failed"):  # as a validator of its own may
        try:
            config = config_class(**values)
        except ValidationError as error:
            problems = [_problem(e) for e in error.errors()]
            raise InvalidConfig(f"Options of the family {family}: {'; '.join(problems)}.") from error
    texts = {name: value for name, value in config if isinstance(value, str)}
    if broken := next((name for name, text in texts.items() if not _is_unicode(text)), None):
        raise InvalidConfig(f"Options of the family {family}: {broken} is {texts[broken]!r}, which is no valid text.")
    return config


def _problem(error: Any) -> str:
    """Return what pydantic found, in words; what a family's own check says stands for itself."""
    words = error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, error['loc']))} is {error['input']!r}: {words}" if error["loc"] else words


def _is_unicode(text: str) -> bool:
    """Whether a text can be written; half a surrogate pair, from a shell with another encoding, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
