"""Every error that the SDK raises on purpose.

    AigcError
    ├── InvalidRequest      (ValueError)    a count, seed, control or option that cannot be used
    ├── InvalidConfig       (ValueError)    a training option, or a value of a recipe, of the wrong type or out of range
    ├── InvalidData         (ValueError)    training data that cannot be read
    ├── InvalidModel        (ValueError)    a model file that is broken, hostile or not one of ours
    ├── InvalidProvenance   (ValueError)    a file without provenance, or with one that is broken or forged
    ├── UnknownName         (LookupError)   no model, family, control, option, ... of that name
    ├── MissingPackage      (ImportError)   an optional package is not installed
    ├── PluginError         (ImportError)   a plugin could not be loaded, or failed
    ├── StorageError        (OSError)       a file could not be read or written
    ├── DeadlineExceeded    (TimeoutError)  generating took longer than `deadline_s`
    ├── DeviceUnavailable   (RuntimeError)  the named device is not there, or cannot run the model
    ├── Refused             (RuntimeError)  a policy plugin refused the request or its contents
    ├── GenerationFailed    (RuntimeError)  the model ran and failed
    ├── NotReproduced       (RuntimeError)  an item made again is not what its file holds
    ├── TrainingFailed      (RuntimeError)  training stopped without a usable model
    ├── Interrupted   (KeyboardInterrupt)   training was stopped by a signal, after it saved a checkpoint
    ├── ExportFailed        (RuntimeError)  the exported file did not pass its checks; nothing was written
    └── ContractBroken    (AssertionError)  a check of `aigc_sdk.testing` found a broken rule of the contract

A message says what was asked, what was found, and what to do. Each leaf is also the builtin in
parentheses, so `except ValueError` works for callers who do not know this tree.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from aigc_sdk.names import folded


class AigcError(Exception):
    """The root: `except AigcError` catches everything that the SDK raises on purpose."""


class InvalidRequest(AigcError, ValueError):
    """A count, seed, control or option that cannot be used."""


class InvalidConfig(AigcError, ValueError):
    """A training option, or a value of a recipe, of the wrong type or out of range."""


class InvalidData(AigcError, ValueError):
    """Training data that cannot be read."""


class InvalidModel(AigcError, ValueError):
    """A model file that is broken, hostile or not one of ours."""


class InvalidProvenance(AigcError, ValueError):
    """A file without provenance, or with one that is broken or forged."""


class UnknownName(AigcError, LookupError):
    """No model, task, control, choice, family, option, format or device of that name."""

    @classmethod
    def of(cls, kind: str, asked: object, known: Iterable[str]) -> "UnknownName":
        """Make the error for a name that is not among the known ones, with the nearest of them.

        Example:
            >>> print(UnknownName.of("model", "digit-vae", ["digits-vae", "poems"]))
            There is no model 'digit-vae'. Did you mean 'digits-vae'? There are: digits-vae, poems.
        """
        names = sorted(known)
        forms = {folded(name): name for name in reversed(names)}  # of names that look alike the first
        near = difflib.get_close_matches(folded(str(asked)[:200]), forms, n=1)
        hint = f" Did you mean {forms[near[0]]!r}?" if near else ""
        there_are = f" There are: {', '.join(names)}." if names else f" There is no {kind} at all."
        return cls(f"There is no {kind} {shown(asked)}.{hint}{there_are}")


class MissingPackage(AigcError, ImportError):
    """An optional package is not installed."""


class PluginError(AigcError, ImportError):
    """A plugin could not be loaded, or failed."""


class StorageError(AigcError, OSError):
    """A file could not be read or written."""


class DeadlineExceeded(AigcError, TimeoutError):
    """Generating took longer than `deadline_s`."""


class DeviceUnavailable(AigcError, RuntimeError):
    """The named device is not there, or cannot run a model that others run."""


class Refused(AigcError, RuntimeError):
    """A policy plugin refused the request or its contents."""


class GenerationFailed(AigcError, RuntimeError):
    """The model ran and failed."""


class NotReproduced(AigcError, RuntimeError):
    """An item made again is not what its file holds."""


class TrainingFailed(AigcError, RuntimeError):
    """Training stopped without a usable model."""


class Interrupted(AigcError, KeyboardInterrupt):
    """Training was stopped by Ctrl-C or SIGTERM, after it saved a checkpoint.

    Args:
        message: what was stopped, and how to go on.
        signal: the number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class ExportFailed(AigcError, RuntimeError):
    """The exported file did not pass its checks; nothing was written."""


class ContractBroken(AigcError, AssertionError):
    """A check of `aigc_sdk.testing` found a broken rule of the contract."""


def missing_package(what: str, module: str, extra: str, distribution: str = "aigc-sdk") -> MissingPackage:
    """Make the error for an optional package that is not there, with the line that installs it."""
    return MissingPackage(
        f"{what} needs the package {module!r}, which is not installed. Run: pip install '{distribution}[{extra}]'"
    )


def reason(error: BaseException) -> str:
    """Return the type and the words of an error that any code may have raised, as one line of at most 500 characters.

    Example:
        >>> reason(ValueError("two" + chr(10) + "lines"))
        'ValueError: two lines'
    """
    try:
        words = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - it may fail at this too
        words = "(without words)"
    name = type(error).__name__
    return printable(f"{name}: {words}" if words else name)[:500]


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Make a PluginError, which begins with `what`, of all that a plugin's code may raise, SystemExit too.

    A Rust panic is no Exception either.

    Example:
        >>> with blamed("The metric 'ratio' failed"):
        ...     1 / 0
        Traceback (most recent call last):
        aigc_sdk.errors.PluginError: The metric 'ratio' failed: ZeroDivisionError: division by zero.
    """
    try:
        yield
    except (AigcError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise PluginError(f"{what}: {reason(error)}.") from error


def printable(text: str, kept: str = "") -> str:
    """Return the text as one line that cannot steer the terminal; it may come from anywhere. `kept` stays as it is.

    Example:
        >>> print(printable("red" + chr(27) + "[31m"))
        red...x1b[31m
    """
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """Return the repr of what a caller gave, short enough for a message.

    Example:
        >>> shown("a" * 1000)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'"
    """
    # Python refuses to write an integer of more than 4,300 digits in decimal.
    text = hex(value) if isinstance(value, int) and value.bit_length() > 14_000 else repr(value)
    return text if len(text) <= 80 else f"{text[:37]}...{text[-1]}"
