"""Exporter: turns a finished model into a file that runs without its training code."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aigc_sdk.generator import Generator


@dataclass(frozen=True)
class Check:
    """One thing that an exporter verified: its name and what was measured."""

    name: str
    measured: str


@dataclass(frozen=True)
class ExportReport:
    """The file that was written and all that was verified before."""

    path: Path
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Exportable:
    """One task of a finished model.

    Attributes:
        sampler: a torch module f(seed, {name: control}) -> content, on the CPU, in evaluation mode; of a measure
            f(content) -> value.
        eager: the same sampler behind the Generator interface, to compare the exported file with. Its card
            is the file's, but for `graph_sha256` and `golden`, which the exporter fills in.
        content: for a measure, what makes contents to try it on.
    """

    sampler: Any
    eager: Generator
    content: Generator | None = None


class Exporter(ABC):
    """Writes one task of a finished model to one file, after verifying it."""

    @abstractmethod
    def export(self, model: Exportable, path: Path) -> ExportReport:
        """Convert, verify and write; on failure write no file.

        Raises:
            ExportFailed: a check failed; says which and by how much.
            StorageError: the file cannot be written.
        """
