"""What has to stay as it is, whatever moves inside of the SDK: cards, provenance, run folders, reports.

    python tests/kept.py

writes tests/data/kept anew. That is for changes that are wanted, such as a new version of a ready-made model.
"""

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aigc_sdk as sdk
from aigc_sdk.card import ModelCard
from aigc_sdk.generation import open_any
from aigc_sdk.testing.families import example_data
from aigc_sdk.training import Run

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).parent / "data" / "kept"
INDEX = json.loads((Path(str(files("aigc_zoo"))) / "models" / "index.json").read_text(encoding="utf-8"))
MODELS = [name for name, entry in INDEX.items() if entry.get("kind", "model") == "model"]

# What is asked of a ready-made model besides a seed.
ASKED: dict[str, dict[str, Any]] = {
    "shakespeare": {"max_length": 12, "prompt": "To be"},
    "folk-tunes": {"max_length": 12, "key": "D", "meter": "6/8", "prompt": "duration 24, note 62, note 66"},
}

# Runs of a few steps, with the data that each is trained on.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("image", {"latent": 2, "width": 4, "prior": "normal"}),
    "rnn": ("text", {"width": 8, "layers": 1, "min_count": 1}),
    "music-rnn": ("music", {"width": 8, "layers": 1, "min_count": 1, "transpose": 1}),
}
TIME, VERSION = "2026-01-01T00:00:00+00:00", "0"

# Nothing of these is imported for one item of any kind.
HEAVY = ("torch", "onnx", "pydantic", "PIL", "mido", "music21", "pyarrow", "pandas", "scipy", "click", "rich")


def cards() -> dict[str, str]:
    """Return the sha256 of the JSON of each ready-made card."""
    return {
        file["file"]: sha256(open_any(name, task=task).card.to_json())
        for name, entry in INDEX.items()
        for task, file in entry["files"].items()
    }


def provenances() -> dict[str, Any]:
    """Return the provenance of one item of each ready-made model."""
    made = {name: sdk.generate(name, seed=7, **ASKED.get(name, {}))[0].provenance for name in MODELS}
    return {name: provenance | {"sdk_version": VERSION} for name, provenance in made.items()}


def run_cards(name: str) -> dict[str, str]:
    """Return the sha256 of the card of each task of a kept run, with time, version and weights left out."""
    run = Run.open(KEPT / "runs" / name)
    family = run.family()
    tasks = (*family.tasks, *family.measures)
    return {task: sha256(_fixed(run.exportable(task, family).eager.card)) for task in tasks}


def report(name: str) -> dict[str, Any]:
    """Return the report on example items of a kind of content, with time and version fixed."""
    items, _ = example_data(RUNS[name][0], n=60)
    found = json.loads(sdk.evaluate(items[:20], items[20:40], train=items[40:], seed=1).to_json())
    found["protocol"] |= {"sdk_version": VERSION, "created": TIME}
    return dict(found)


def imported(code: str) -> list[str]:
    """Return the modules of the SDK, of its plugins, and of HEAVY that a new process imports to run the code."""
    program = f"import sys\nimport aigc_sdk as sdk\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return [name for name in done.stdout.split() if name.startswith("aigc_") or name in HEAVY]


def mentions() -> list[tuple[str, str]]:
    """Return where code of the core or of the exporters names a kind of content: as a text, or as a class."""
    kinds, classes = {"image", "text", "music"}, ("Image", "Text", "Music", "Piece")
    found = []
    for path in (file for folder in ("aigc_sdk", "exporters") for file in (ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)) if text in kinds:
                    found.append((name, text))
                case ast.Name(id=text) if text.startswith(classes):
                    found.append((name, text))
    return found


def sha256(text: str) -> str:
    """Return the hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _fixed(card: ModelCard) -> str:
    values = json.loads(card.to_json())
    return json.dumps(values | {"created": TIME, "sdk_version": VERSION, "graph_sha256": ""}, sort_keys=True)


def write() -> None:
    """Write what is kept anew."""
    shutil.rmtree(KEPT, ignore_errors=True)
    for name, (kind, config) in RUNS.items():
        items, labels = example_data(kind)
        data = items if kind == "music" else (items, labels)
        with TemporaryDirectory() as folder:
            run = sdk.train(name, data, out=Path(folder) / "run", steps=3, batch_size=8, name=name, **config)
            (KEPT / "runs" / name).mkdir(parents=True)
            for file in ("run.json", "metrics.jsonl", "checkpoint.safetensors"):
                shutil.copyfile(run.folder / file, KEPT / "runs" / name / file)
    _write("cards", cards())
    _write("provenances", provenances())
    _write("run_cards", {name: run_cards(name) for name in RUNS})
    _write("reports", {name: report(name) for name in RUNS})


def _write(name: str, values: Mapping[str, Any]) -> None:
    (KEPT / f"{name}.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
