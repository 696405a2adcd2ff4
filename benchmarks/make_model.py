"""Make a ready-made model from its recipe and put it into the zoo.

    python benchmarks/make_model.py digits-vae [--run FOLDER]

Runs the recipe in FOLDER (in the cache without it; what is done there already is not done again), copies the model
files and their cards into plugins/aigc_zoo/models, enters them in its index, and keeps what the figures are printed
from in benchmarks/runs/NAME: run.json, metrics.jsonl, the averaged weights that its samplers use, and made.json with
commit, machine and minutes. Files that measure are not copied; and of a model of texts vectors alone are kept, for its
files hold the matrices by name, but vectors summed up.
"""

import argparse
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save

import aigc_sdk as sdk
from aigc_sdk.files import cache_folder, write_bytes
from aigc_sdk.recipe import Recipe, copy_models
from aigc_sdk.training import Run
from aigc_sdk.training.checkpoint import CHECKPOINT, EMA
from aigc_sdk.training.run import METRICS, RECORD
from datasets import fetch
from timing import git_commit, machine

ROOT = Path(__file__).parent.parent
ZOO = ROOT / "plugins" / "aigc_zoo"
RUNS = ROOT / "benchmarks" / "runs"


def main() -> None:
    """Train, copy, enter, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(path.stem for path in (ZOO / "recipes").glob("*.toml")))
    parser.add_argument("--run", type=Path, help="the run folder")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    path = ZOO / "recipes" / f"{arguments.name}.toml"
    recipe = Recipe.read(path)
    folder = arguments.run or cache_folder() / "runs" / arguments.name
    commit = git_commit()
    run = sdk.run(path, data=fetch(str(recipe.data.name)), out=folder)
    if not (folder / "made.json").exists():
        write_bytes(folder / "made.json", json.dumps(_made(run, commit), indent=1).encode())
    enter(arguments.name, run, recipe)
    keep(arguments.name, run)


def enter(name: str, run: Run, recipe: Recipe) -> None:
    """Copy the model files into the zoo and list them in its index, with the sha256 that vouches for them."""
    files = {}
    measures = run.family_class().measures
    for task, path in copy_models(run, ZOO / "models", [task for task in run.models if task not in measures]).items():
        files[task] = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    index_path = ZOO / "models" / "index.json"
    index = json.loads(index_path.read_text())
    index[name] = {"summary": recipe.summary, "license": recipe.train.config["license"], "files": files}
    write_bytes(index_path, (json.dumps(index, indent=1) + "\n").encode())


def keep(name: str, run: Run) -> None:
    """Keep the record of the run and its averaged weights, from which the figures are printed."""
    kept = RUNS / name
    kept.mkdir(parents=True, exist_ok=True)
    for file in (RECORD, METRICS, "made.json"):
        shutil.copyfile(run.folder / file, kept / file)
    family = run.family()
    used = {weights.data_ptr() for task in family.tasks for weights in family.sampler(task).state_dict().values()}
    tensors = {f"{EMA}{name}": weights for name, weights in family.state_dict().items() if weights.data_ptr() in used}
    if family.modality in ("text", "music"):
        tensors = {name: weights for name, weights in tensors.items() if weights.ndim == 1}
    write_bytes(kept / CHECKPOINT, save(tensors))


def _made(run: Run, commit: str) -> dict[str, Any]:
    return {"commit": commit, "machine": machine(["torch"]), "minutes": run.metrics[-1]["minutes"]}


if __name__ == "__main__":
    main()
