"""The page of a report: one HTML file, its pictures inside. Every text is escaped, names come from anywhere."""

import base64
import io
import json
import math
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_sdk.errors import StorageError, missing_package, printable
from aigc_sdk.evaluator import Score
from aigc_sdk.modality import find_modality

if TYPE_CHECKING:
    from aigc_sdk.evaluation.report import Report

# Lines of a run's metrics.jsonl hold these beside the losses.
_NO_LOSS = {"step", "validation", "epoch", "minutes", "items_per_s", "learning_rate"}
_MOST_LINES = 200_000
_MOST_CURVES = 9
# Matplotlib cannot draw what is much larger; a loss that is not finite leaves a gap as well.
_LARGEST = 1e100


def page(report: "Report") -> str:
    """Return the page; raises MissingPackage when there are losses to draw and matplotlib is not installed."""
    title = f"Evaluation of {escape(report.subject)}"
    protocol = report.protocol
    against = f"{protocol['n_fake']:,} generated items against {protocol['n_real']:,} of {protocol['reference_name']}"
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n"
        f"<header><h1>{title}</h1><p>{escape(against)}, {_features(protocol)}</p></header>\n"
        f'<main>\n<section class="scores">{"".join(_cards(report))}</section>\n'
        f"{_samples(report)}{_pairs(report)}{_curves(report.pictures.metrics_file)}{_protocol(report)}</main>\n</html>\n"
    )


def _features(protocol: Mapping[str, Any]) -> str:
    return f"features by {escape(str(protocol['extractor']))}" if protocol["extractor_sha256"] else "as they are"


def _cards(report: "Report") -> list[str]:
    """Return one card for each metric, what was not measured last."""
    cards = []
    for score in report.scores:
        low, high = score.interval
        baseline = "" if score.baseline is None else f"; training items reach {score.baseline:.4g}"
        cards.append(
            f"<article><h2>{escape(score.metric)}</h2><p class=value>{score.value:.4g}</p>{_bar(score)}"
            f"<p class=small>95&nbsp;% interval {low:.4g} to {high:.4g}{baseline}. {score.direction.capitalize()} is"
            f" better.</p><p><strong>{escape(score.verdict)}</strong></p>"
            f"<p>{escape(report.explanations[score.metric])}</p></article>\n"
        )
    for metric, reason in report.not_measured.items():
        cards.append(
            f"<article class=missing><h2>{escape(metric)}</h2><p class=value>not measured</p>"
            f"<p><strong>{escape(reason[:1].upper() + reason[1:])}.</strong></p>"
            f"<p>{escape(report.explanations.get(metric, ''))}</p></article>\n"
        )
    return cards


def _bar(score: Score) -> str:
    """Draw the interval as a band, the value as a dot and the baseline as a line, on a scale from 0."""
    top = 1.0 if score.direction == "higher" else 1.15 * max(score.interval[1], score.baseline or 0, 1e-9)
    low, high, value = (100 * min(max(x / top, 0), 1) for x in (*score.interval, score.value))
    line = (
        "" if score.baseline is None else f'<i class=line style="left:{100 * min(score.baseline / top, 1):.2f}%"></i>'
    )
    return (
        f'<div class=bar><i class=band style="left:{low:.2f}%;width:{high - low:.2f}%"></i>{line}'
        f'<i class=dot style="left:{value:.2f}%"></i></div><div class=scale><span>0</span><span>{top:.3g}</span></div>'
    )


def _samples(report: "Report") -> str:
    fake, real = (
        _some(report, report.pictures.fake, "generated items"),
        _some(report, report.pictures.real, "real items"),
    )
    return (
        f"<section><h2>Samples</h2><div class=two><figure>{fake}<figcaption>Generated</figcaption></figure>"
        f"<figure>{real}<figcaption>Real</figcaption></figure></div></section>\n"
    )


def _some(report: "Report", items: Any, caption: str) -> str:
    """Show some items: all in one picture, or one below the other."""
    exhibits = find_modality(report.pictures.modality).evaluation.exhibits(items, caption)
    if len(exhibits) == 1:
        return exhibits[0].to_html()
    return "".join(each.to_html() if each.mime == "text/plain" else f"<p>{each.to_html()}</p>" for each in exhibits)


def _pairs(report: "Report") -> str:
    """Show the generated items that look most like copies beside what they would be copies of."""
    if not report.pictures.pairs:
        return ""
    words = "a generated item and the training item nearest to it"
    figures = "".join(
        f"<figure>{_some(report, np.stack([pair.fake, pair.train]), words)}"
        f"<figcaption>{pair.distance:.3g}</figcaption></figure>"
        for pair in report.pictures.pairs
    )
    return (
        "<section><h2>Nearest training items</h2><p>The generated items that look most like copies, left, each with the"
        " training item nearest to it, right: they are far nearer to that one than to the next. Below, the distance of"
        f" their features.</p><div class=pairs>{figures}</div></section>\n"
    )


def _protocol(report: "Report") -> str:
    rows = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(_plain(value))}</td></tr>"
        for name, value in report.protocol.items()
    )
    return (
        "<section><h2>Protocol</h2><p>Only scores that were measured the same way compare: same metric, extractor,"
        f" resizing, reference and numbers of items.</p><table>{rows}</table></section>\n"
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items()) or "none"
    return "none" if value is None else str(value)


def _picture(data: bytes, words: str, kind: str = "png") -> str:
    return f'<img alt="{words}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _curves(metrics_file: Path | None) -> str:
    curves = {} if metrics_file is None else _read_losses(metrics_file)
    if not curves:
        return ""
    picture = _picture(_draw(curves), "losses over the steps of the training", "svg+xml")
    return f"<section><h2>Training</h2><figure class=wide>{picture}</figure></section>\n"


def _read_losses(path: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return loss -> "training" or "validation" -> its (step, value) pairs; lines that are no losses are skipped."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line for line, _ in zip(file, range(_MOST_LINES), strict=False)]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        try:
            values = json.loads(line)
            if not abs(values["step"]) < _LARGEST:
                continue
            step = float(values["step"])
            parts = {"training": values, "validation": values.get("validation", {})}
            for part, losses in parts.items():
                for name, value in losses.items():
                    if name not in _NO_LOSS and isinstance(value, int | float):
                        drawn = float(value) if abs(value) < _LARGEST else math.nan
                        curves.setdefault(name, {}).setdefault(part, []).append((step, drawn))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            continue  # a line that was cut off when the machine stopped
    return dict(list(curves.items())[:_MOST_CURVES])


def _draw(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> bytes:
    """Draw one small chart for each loss, as SVG."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package("The page with loss curves", "matplotlib", "evaluate") from error
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    file = io.BytesIO()
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "report"}):
        figure = Figure(figsize=(3.6 * columns, 2.4 * rows), layout="constrained")
        for axes, (name, parts) in zip(
            figure.subplots(rows, columns, squeeze=False).flat, curves.items(), strict=False
        ):
            for part, points in parts.items():
                axes.plot(*zip(*points, strict=True), label=part, lw=1.4, color=_COLOURS[part])
            axes.set_title(printable(name)[:40], parse_math=False)
            axes.set_xlabel("step")
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
        for axes in figure.axes[len(curves) :]:
            axes.remove()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


_COLOURS = {"training": "#8a93a3", "validation": "#1f5fbf"}
