"""Report: the scores with the protocol they were measured by, as JSON and as a page to look at."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aigc_sdk.errors import UnknownName
from aigc_sdk.evaluator import Score
from aigc_sdk.files import atomic_pair, make_folder


@dataclass(frozen=True)
class Pair:
    """A generated item, the training item nearest to it, and how far apart their features are."""

    fake: Any
    train: Any
    distance: float


@dataclass(frozen=True)
class Pictures:
    """What a report shows beside the figures.

    Attributes:
        fake: some generated items, in the form in which they are compared.
        real: the same of the reference.
        modality: what they are.
        pairs: the generated items that look most like copies.
        metrics_file: the losses of the run, one JSON object in a line; may be missing.
    """

    fake: Any
    real: Any
    modality: str
    pairs: tuple[Pair, ...] = ()
    metrics_file: Path | None = None


@dataclass(frozen=True)
class Report:
    """What `sdk.evaluate` returns: `report["recall"]` is a Score, `save(folder)` writes the files.

    In a notebook it shows its scores as a table.

    Attributes:
        subject: the model's name, or "contents".
        scores: what was measured.
        not_measured: metric -> why not.
        explanations: metric -> what it is, in plain words.
        protocol: all that the figures depend on.
        pictures: what the page shows.

    Example:
        >>> import numpy as np, aigc_sdk as sdk
        >>> squares = np.random.default_rng(1).integers(0, 256, (3, 100, 28, 28, 1)).astype("uint8")
        >>> report = sdk.evaluate(squares[0], squares[1], train=squares[2], metrics=["recall", "copying"])
        >>> [score.metric for score in report.scores], report["copying"].details["p"] > 0.05
        (['recall', 'copying'], True)
        >>> report
        <Report of contents: recall 0..., copying ...>
    """

    subject: str
    scores: tuple[Score, ...]
    not_measured: Mapping[str, str]
    explanations: Mapping[str, str]
    protocol: Mapping[str, Any]
    pictures: Pictures = field(compare=False)

    def __getitem__(self, metric: str) -> Score:
        for score in self.scores:
            if score.metric == metric:
                return score
        raise UnknownName.of("score", metric, [score.metric for score in self.scores])

    def __repr__(self) -> str:
        scores = ", ".join(f"{score.metric} {score.value:.4g}" for score in self.scores)
        return f"<Report of {self.subject}: {scores or 'no scores'}>"

    def _repr_html_(self) -> str:
        """Show the scores in a notebook."""
        from html import escape

        titles, *rows = self.rows()
        head = "".join(f"<th>{escape(title)}</th>" for title in titles)
        body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
        return f"<table><caption>Evaluation of {escape(self.subject)}</caption><tr>{head}</tr>{body}</table>"

    def rows(self) -> list[tuple[str, ...]]:
        """Return the scores as texts, for people: a row of titles, and one for each metric."""
        return [
            ("metric", "value", "95 % interval", "training items", "better", "meaning"),
            *(
                (
                    score.metric,
                    f"{score.value:.4g}",
                    f"{score.interval[0]:.4g} to {score.interval[1]:.4g}",
                    "" if score.baseline is None else f"{score.baseline:.4g}",
                    score.direction,
                    score.verdict,
                )
                for score in self.scores
            ),
            *((name, "-", "", "", "", f"not measured: {reason}") for name, reason in self.not_measured.items()),
        ]

    def to_json(self) -> str:
        """Return the figures and the protocol as JSON."""
        values = {
            "subject": self.subject,
            "scores": [score.to_dict() for score in self.scores],
            "not_measured": dict(self.not_measured),
            "protocol": dict(self.protocol),
        }
        return json.dumps(values, ensure_ascii=False, indent=1)

    def to_html(self) -> str:
        """Return the report as one page of HTML that needs no other file.

        Raises:
            MissingPackage: there are losses to draw, and the `evaluate` extra is not installed; says the pip line.
        """
        from aigc_sdk.evaluation.page import page

        return page(self)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `report.json` and `report.html` into the folder and return the path of the page.

        Raises:
            MissingPackage: as in `to_html`; nothing was written.
            StorageError: a file cannot be written.
        """
        html = self.to_html()
        made = make_folder(folder)
        with atomic_pair(made / "report.html", made / "report.json") as (page, figures):
            page.write_bytes(html.encode())
            figures.write_bytes(self.to_json().encode())
        return made / "report.html"
