"""Ready-made models and measures, and how each is made again: `recipes/`.

`models/index.json` lists them. `benchmarks/make_model.py` follows a model's recipe; a measure, which no family trains,
has one for `benchmarks/make_measure.py`. Both write the index together with the files.
"""

import json
from collections.abc import Callable
from importlib.resources import files

from aigc_sdk import ModelFile, ModelSpec, hookimpl


@hookimpl
def aigc_register_models(register: Callable[[ModelSpec], None]) -> None:
    """Declare every model of the index."""
    index = json.loads(files(__name__).joinpath("models/index.json").read_text(encoding="utf-8"))
    for name, entry in index.items():
        register(
            ModelSpec(
                name=name,
                package=__name__,
                files={
                    task: ModelFile(f"models/{file['file']}", file["sha256"]) for task, file in entry["files"].items()
                },
                summary=entry["summary"],
                license=entry["license"],
                kind=entry.get("kind", "model"),
            )
        )
