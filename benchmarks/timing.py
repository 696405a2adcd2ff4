"""What the benchmarks share: interleaved runs, their medians, and a report that judges figures by their bounds.

Only the standard library is imported here: what a small process measures of its children is not its own.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def interleave(actions: Mapping[str, Callable[[], T]], runs: int, *, warmups: int = 1) -> dict[str, list[T]]:
    """Run the actions in turn and return what each returned, so that a busy moment hits all of them alike.

    Every second round goes backwards: no action always has the same one before it.

    Args:
        actions: what to run, by name.
        runs: rounds to keep.
        warmups: rounds before them, whose results are dropped.

    Example:
        >>> interleave({"a": lambda: 1, "b": lambda: 2}, 3)
        {'a': [1, 1, 1], 'b': [2, 2, 2]}
    """
    results: dict[str, list[T]] = {name: [] for name in actions}
    for number in range(warmups + runs):
        for name in list(actions) if number % 2 == 0 else reversed(list(actions)):
            result = actions[name]()
            if number >= warmups:
                results[name].append(result)
    return results


def stopwatch(action: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs the action and returns the seconds that it took."""

    def run() -> float:
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    return run


def medians(results: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """Return the median of each action's results."""
    return {name: statistics.median(values) for name, values in results.items()}


class Report:
    """Prints figures as aligned text, each that has a bound with PASS or FAIL.

    Where the variable FIGURES names a folder, they are kept there too, as SCRIPT-DATE.json, after each figure anew.

    Args:
        packages: distributions whose versions belong beside the figures.
    """

    def __init__(self, *packages: str) -> None:
        self._missed = 0
        self._machine, self._figures = machine(packages), list[dict[str, Any]]()
        print(self._machine)

    def figure(self, what: str, value: float, unit: str = "") -> None:
        """Print a figure without a bound."""
        print(f"{what:56} {_readable(value):>10} {unit:4}", flush=True)
        self._keep(what=what, value=value, unit=unit)

    def at_most(self, what: str, value: float, bound: float, unit: str = "") -> None:
        """Print a figure, the most that it may be, and whether it is."""
        self._judge(what, value, f"at most {_readable(bound):>8}", unit, passed=value <= bound)

    def at_least(self, what: str, value: float, bound: float, unit: str = "") -> None:
        """Print a figure, the least that it may be, and whether it is."""
        self._judge(what, value, f"at least {_readable(bound):>7}", unit, passed=value >= bound)

    def ratio(self, what: str, values: Mapping[str, float], name: str, base: str, bound: float) -> None:
        """Judge how many times the base's value another one is."""
        self.at_most(what, values[name] / values[base], bound, "x")

    def _judge(self, what: str, value: float, bound: str, unit: str, *, passed: bool) -> None:
        self._missed += not passed
        print(f"{what:56} {_readable(value):>10} {unit:4} {bound}  {'PASS' if passed else 'FAIL'}", flush=True)
        self._keep(what=what, value=value, unit=unit, bound=" ".join(bound.split()), passed=passed)

    def _keep(self, **figure: Any) -> None:
        self._figures.append(figure | {"value": float(figure["value"])})
        if folder := os.environ.get("FIGURES"):
            path = Path(folder, f"{Path(sys.argv[0]).stem}-{datetime.now():%Y-%m-%d}.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = {"commit": git_commit(), "machine": self._machine, "figures": self._figures}
            path.with_suffix(".tmp").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".tmp").replace(path)

    @property
    def exit_code(self) -> int:
        """Return 1 when a bound was missed, and else 0."""
        return int(self._missed > 0)


def git_commit() -> str:
    """Return the commit that is checked out."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def machine(packages: Iterable[str]) -> str:
    """Return a line with the date, the machine, how busy it is, and the versions of Python and the packages."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = [f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in packages)]
    return (
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}, {platform.system()} {platform.machine()},"
        f" {os.cpu_count()} cores{load}; {', '.join(versions)}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _readable(value: float) -> str:
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.3f}" if abs(value) >= 0.001 else f"{value:.1e}"
