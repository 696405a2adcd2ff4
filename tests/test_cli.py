"""The command line: what it writes and prints, how it reads -c, and how it fails."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import psutil
import pytest
from click.testing import CliRunner

import aigc_sdk as sdk
from aigc_sdk import cli, generation
from aigc_sdk.card import Control, Golden
from aigc_sdk.registry import Plugin
from aigc_sdk.runtime.safety import trust
from test_safety import endless_model
from tiny_model import CONTROLS, expected, make_card, make_graph, to_bytes, write_tiny_model


@pytest.fixture
def aigc(monkeypatch, tmp_path):
    """Run the command line in this process, in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments):
        return CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def fail(monkeypatch, tmp_path, capsys):
    """Run `aigc` through its entry point and return its exit code and what it printed on stderr."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["aigc", *map(str, arguments)])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        printed = capsys.readouterr()
        assert printed.out == ""
        assert list(folder.iterdir()) == []
        return raised.value.code, printed.err

    return run


def controls_of(output):
    return [{name: item["controls"][name] for name in ("label", "gain", "flip")} for item in json.loads(output)]


def test_generate_writes_the_items_and_a_grid(aigc, tiny_path, tmp_path):
    done = aigc("generate", tiny_path, "-n", 5, "--seed", 7, "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout == f"5 items in {tmp_path / 'out'}, the first from seed 7\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*(f"0{i}.png" for i in range(5)), "grid.png"]
    wanted = sdk.generate(tiny_path, 5, seed=7)
    for i, item in enumerate(wanted):
        with PIL.Image.open(tmp_path / "out" / f"0{i}.png") as image:
            assert np.array_equal(np.asarray(image), item.data[..., 0])
            assert json.loads(image.text["aigc.provenance"]) == item.provenance
    with PIL.Image.open(tmp_path / "out" / "grid.png") as grid:
        assert np.array_equal(np.asarray(grid), np.asarray(wanted.grid()))


def test_generate_grid_shows_the_first_256(aigc, tiny_path, tmp_path):
    done = aigc("generate", tiny_path, "-n", 300, "--seed", 7, "-o", tmp_path / "out")
    assert done.stdout.startswith("300 items in ")
    assert len(list((tmp_path / "out").glob("[0-9]*.png"))) == 300
    with PIL.Image.open(tmp_path / "out" / "grid.png") as grid:
        assert np.array_equal(np.asarray(grid), np.asarray(sdk.generate(tiny_path, 256, seed=7).grid()))


@pytest.mark.parametrize("as_json", [False, True])
def test_generate_ctrl_c_keeps_what_is_done(aigc, tiny_path, tmp_path, monkeypatch, as_json):
    really_save = sdk.Image.save

    def save(item, path):
        if path.name == "0000005.png":
            raise KeyboardInterrupt
        return really_save(item, path)

    monkeypatch.setattr(sdk.Image, "save", save)
    flags = ["--json"] if as_json else []
    done = aigc("generate", tiny_path, "-n", 2_000_000, "--seed", 7, "-o", tmp_path / "out", *flags)
    assert done.exit_code == 130
    assert done.stderr == f"aigc: stopped after 5 of 2000000 items; they are in {tmp_path / 'out'}\n"
    names = [f"000000{i}.png" for i in range(5)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "grid.png"]
    if as_json:
        assert [Path(row["path"]).name for row in json.loads(done.stdout)] == names
    else:
        assert done.stdout == f"5 items in {tmp_path / 'out'}, the first from seed 7\n"


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_generate_in_a_real_process_ends_at_ctrl_c_with_whole_files(tiny_path, tmp_path):
    out = tmp_path / "out"
    code = "from aigc_sdk.cli import main; main()"
    command = [sys.executable, "-c", code, "generate", str(tiny_path), "-n", "1000000", "--seed", "7", "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "000020.png").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.startswith("aigc: stopped after ") and error.endswith(f" of 1000000 items; they are in {out}\n")
    files = sorted(out.glob("[0-9]*.png"))
    counted = int(error.split()[3])
    assert printed.startswith(f"{counted} items in ")
    assert len(files) - counted in (0, 1)  # the signal may come between a file and its count
    wanted = sdk.generate(tiny_path, len(files), seed=7)
    for path, item in zip(files, wanted, strict=True):
        with PIL.Image.open(path) as image:
            assert np.array_equal(np.asarray(image), item.data[..., 0])
    assert sorted(path.name for path in out.iterdir()) == [*(path.name for path in files), "grid.png"]


def test_generate_without_out_names_the_folder_by_model_and_seed(aigc, tiny_path, tmp_path):
    assert aigc("generate", tiny_path, "--seed", 7).stdout == "1 item in tiny-7, the first from seed 7\n"
    assert [path.name for path in (tmp_path / "here" / "tiny-7").iterdir()] == ["00.png"]
    assert aigc("generate", tiny_path, "--seed", 8, "-n", 2).stdout == "2 items in tiny-8, the first from seed 8\n"
    assert (tmp_path / "here" / "tiny-8" / "grid.png").exists()


def test_generate_json_tells_paths_and_provenance(aigc, tiny_path, tmp_path):
    done = aigc("generate", tiny_path, "-n", 2, "--seed", 7, "-c", "label=owl", "--json")
    first, second = json.loads(done.stdout)
    wanted = sdk.generate(tiny_path, 2, seed=7, label="owl")
    assert first == {"path": "tiny-7/00.png", **wanted[0].provenance}
    assert second == {"path": "tiny-7/01.png", **wanted[1].provenance}
    assert (tmp_path / "here" / second["path"]).exists()


@pytest.mark.parametrize(
    ("assignments", "wanted"),
    [
        ([], [{"label": -1, "gain": 1.0, "flip": False}]),
        (["label=owl", "gain=0.5", "flip=true"], [{"label": 2, "gain": 0.5, "flip": True}]),
        (["label=1", "gain=2"], [{"label": 1, "gain": 2.0, "flip": False}]),
        (["label=[0, 2]"], [{"label": 0, "gain": 1.0, "flip": False}, {"label": 2, "gain": 1.0, "flip": False}]),
        (
            ['label=["owl", 1]', "flip=[true, false]"],
            [{"label": 2, "gain": 1, "flip": True}, {"label": 1, "gain": 1, "flip": False}],
        ),
        ([" label =-1"], [{"label": -1, "gain": 1.0, "flip": False}]),
    ],
)
def test_generate_reads_controls(aigc, tiny_path, assignments, wanted):
    flags = [part for text in assignments for part in ("-c", text)]
    assert controls_of(aigc("generate", tiny_path, "--seed", 7, *flags, "--json").stdout) == wanted


@pytest.mark.parametrize(("text", "index"), [("3", 0), ("0", 1), ("true", 2), ("2", 2), ('"0"', 1), ("-1", -1)])
def test_generate_a_choices_own_name_comes_before_numbers(aigc, tmp_path, text, index):
    label = Control(name="label", kind="choice", choices=("3", "0", "true"), default=-1, help="")
    path = write_tiny_model(tmp_path / "tiny.onnx", controls=(label, *CONTROLS[1:]))
    done = aigc("generate", path, "-c", f"label={text}", "--json")
    assert json.loads(done.stdout)[0]["controls"]["label"] == index


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "{tiny}", "-c", "label=frog"], "no choice for label 'frog'. There are: cat, dog, owl."),
        (["generate", "{tiny}", "-c", "lable=1"], "aigc: There is no control of tiny 'lable'. Did you mean 'label'?"),
        (["generate", "{tiny}", "-c", "label"], "aigc: -c 'label' is not NAME=VALUE."),
        (["generate", "{tiny}", "-c", "=3"], "aigc: -c '=3' is not NAME=VALUE."),
        (["generate", "{tiny}", "-c", "gain=NaN"], "aigc: gain is nan; give a number from 0 to 2."),
        (["generate", "{tiny}", "-c", "gain=1e999"], "aigc: gain is inf; give a number from 0 to 2."),
        (["generate", "{tiny}", "-c", "gain=null"], "aigc: gain is None; give a number from 0 to 2."),
        (["generate", "{tiny}", "-c", "gain=" + "[" * 50_000], "aigc: gain is '[["),
        (["generate", "{tiny}", "-c", "n=3"], "aigc: There is no control of tiny 'n'."),
        (["generate", "{tiny}", "-c", "seed=3"], "aigc: There is no control of tiny 'seed'. Did you mean 'seed_b'?"),
        (["generate", "{tiny}", "-c", "self=3"], "aigc: There is no control of tiny 'self'."),
        (["generate", "{tiny}", "-n", "0"], "aigc: n is 0; give the number of items"),
        (["generate", "{tiny}", "-n", str(10**12)], "aigc: n is 1000000000000;"),
        (["generate", "{tiny}", "--seed", str(2**53)], "aigc: seed is 9007199254740992 (int); a seed is"),
        (["generate", "{tiny}", "--device", "cuda"], "aigc: device='cuda' needs CUDAExecutionProvider"),
        (["generate", "{tiny}", "--task", "paint"], "aigc: There is no task of tiny 'paint'."),
        (["generate", "{tiny}", "-o", "{tiny}"], "aigc: Cannot make "),
        (["generate", "no-such-model"], "aigc: There is no model 'no-such-model'."),
        (["generate", "missing.onnx"], "aigc: Cannot read missing.onnx: No such file or directory."),
        (["inspect", "."], "aigc: . has no model.onnx;"),
        (["selftest", "missing.onnx"], "aigc: Cannot read missing.onnx"),
        (["generate", "{tiny}", "-o", ""], "aigc: Invalid value for '-o' / '--out': it is empty; give a path"),
        (["train", "vae"], "aigc: Training needs DATA and --out DIR;"),
        (["train", "vae", "{tiny}"], "aigc: Training needs DATA and --out DIR;"),
        (["train", "vae", "--out", "run"], "aigc: Training needs DATA and --out DIR;"),
        (["train", "vae", "{tiny}", "--out", "run", "-c", "seed=3"], "aigc: -c seed=... is no option of a family;"),
        (["train", "vae", "{tiny}", "--out", "run", "-c", "resume=true"], "aigc: -c resume=... is no option"),
        (["train", "vee", "{tiny}", "--out", "run"], "aigc: There is no family 'vee'. Did you mean 'vae'?"),
        (["train", "vae", "{tiny}", "--out", "run"], "is of no kind that can be read"),
        (["train", "vae", "{tiny}", "--out", "run", "-c", "latnt=3"], "Did you mean 'latent'?"),
        (["export", "missing", "out.onnx"], "aigc: "),
    ],
)  # fmt: skip
def test_error_is_one_line_with_exit_code_2(fail, tiny_path, arguments, message):
    code, printed = fail(*(argument.format(tiny=tiny_path) for argument in arguments))
    assert code == 2
    assert message in printed
    assert printed.startswith("aigc: ") and printed.endswith("\n") and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate"], "aigc: Missing argument 'MODEL'"),
        (["paint"], "aigc: No such command 'paint'"),
        (["generate", "x", "-n", "1.5"], "aigc: Invalid value for '-n': '1.5' is not a valid integer."),
        (["generate", "x", "--sed", "1"], "aigc: No such option '--sed'"),
        (["generate", "digits-vae", "-c", "label=1", "-c", "label=2"], "aigc: -c label=... is there twice"),
    ],
)
def test_wrong_usage_is_one_line_with_exit_code_2(fail, arguments, message):
    code, printed = fail(*arguments)
    assert code == 2
    assert printed.startswith(message) and printed.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("as_json", [False, True])
def test_generate_ctrl_c_in_the_first_batch_says_that_nothing_was_made(tmp_path, as_json):
    path, out = tmp_path / "endless.onnx", tmp_path / "out"
    path.write_bytes(endless_model())
    trust(path.read_bytes())
    program = "import sys; sys.stderr.write('begun\\n'); from aigc_sdk.cli import main; main()"
    command = [sys.executable, "-c", program, "generate", str(path), "-n", "3", "-c", "flip=true", "-o", str(out)]
    command += ["--json"] * as_json
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    clock = psutil.Process(process.pid)
    while sum(clock.cpu_times()[:2]) < 3:  # more than starting and loading take, so that it is in the run
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == "begun\naigc: stopped after 0 of 3 items; nothing was made\n"
    assert printed == ("[]\n" if as_json else "") and not out.exists()


@pytest.mark.skipif(os.name == "nt", reason="a shell there cannot close them")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_generate_with_closed_streams_saves_and_ends_well(tiny_path, tmp_path, closed):
    program = "from aigc_sdk.cli import main; main()"
    command = [sys.executable, "-c", program, "generate", str(tiny_path), "-n", "3", "--seed", "7"]
    shell = f"{shlex.join([*command, '-o', str(tmp_path / 'out')])} {closed}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = sdk.generate(tiny_path, 3, seed=7)
    for i in range(3):
        with PIL.Image.open(tmp_path / "out" / f"{i:02}.png") as image:
            assert np.array_equal(np.asarray(image), np.asarray(wanted[i].to_pil()))
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join([*command[:3], 'models'])} {closed}"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(os.name == "nt", reason="needs signals of pipes")
def test_generate_whose_reader_left_saves_and_ends_without_a_traceback(tiny_path, tmp_path):
    program = "from aigc_sdk.cli import main; main()"
    command = [sys.executable, "-c", program, "generate", str(tiny_path), "-n", "3", "-o", str(tmp_path / "out")]
    done = subprocess.run(["sh", "-c", f"{shlex.join(command)} | true"], capture_output=True, text=True, check=False)
    assert len(list((tmp_path / "out").glob("[0-9]*.png"))) == 3
    assert done.stderr in ("", "aigc: Cannot print: [Errno 32] Broken pipe.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_printing_to_a_full_disk_is_one_line_with_exit_code_2():
    program = "from aigc_sdk.cli import main; main()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "aigc: Cannot print: [Errno 28] No space left on device.\n"


def test_error_in_a_real_process_has_exit_code_2_and_no_traceback(tiny_path):
    command = [
        sys.executable,
        "-c",
        "from aigc_sdk.cli import main; main()",
        "generate",
        str(tiny_path),
        "-c",
        "gain=3",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "aigc: gain is 3; give a number from 0 to 2.\n"


def test_error_with_a_hostile_name_cannot_steer_the_terminal(fail):
    code, printed = fail("generate", "evil\x1b[2J\nname.onnx")
    assert code == 2
    assert printed == "aigc: Cannot read evil\\x1b[2J\\nname.onnx: No such file or directory.\n"


def test_generate_json_is_not_disturbed_by_a_plugin_that_prints(aigc, tiny_path, monkeypatch):
    def make(*arguments):
        print("I am no JSON")
        return made(*arguments)

    made = generation.make_contents
    monkeypatch.setattr(generation, "make_contents", make)
    done = aigc("generate", tiny_path, "-n", 2, "--json")
    assert len(json.loads(done.stdout)) == 2
    assert "I am no JSON" in done.stderr


def test_success_has_exit_code_0(monkeypatch, tiny_path, tmp_path):
    monkeypatch.setattr(sys, "argv", ["aigc", "generate", str(tiny_path), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    assert raised.value.code == 0


def test_help_lists_the_commands(aigc):
    done = aigc("--help")
    assert done.exit_code == 0
    for command in ("generate", "train", "export", "models", "plugins", "inspect", "selftest", "doctor", "evaluate"):
        assert f"\n  {command} " in done.stdout


def test_models_lists_names_tasks_and_licences(aigc, monkeypatch):
    found = [generation.ModelInfo("squares", ("generate", "mirror"), "grey [8 x 8] squares", "MIT")]
    monkeypatch.setattr(sdk, "models", lambda: found)
    shown = aigc("models").stdout
    assert all(word in shown for word in ("squares", "generate, mirror", "MIT", "grey [8 x 8] squares"))
    assert json.loads(aigc("models", "--json").stdout) == [
        {
            "name": "squares",
            "tasks": ["generate", "mirror"],
            "summary": "grey [8 x 8] squares",
            "license": "MIT",
            "kind": "model",
        }
    ]


def test_plugins_lists_the_broken_with_their_reason(aigc, monkeypatch):
    broken = Plugin("flows", "my-flows", "1.0", "failed", "ImportError: pip install 'aigc-sdk[train]'")
    monkeypatch.setattr(sdk, "plugins", lambda: [broken, *generation.plugins()])
    shown = aigc("plugins").stdout
    assert all(word in shown for word in ("flows", "my-flows", "failed", "aigc-sdk[train]", "family vae", "loaded"))
    rows = json.loads(aigc("plugins", "--json").stdout)
    assert rows[0]["reason"] == broken.reason
    assert {row["name"]: row["provides"] for row in rows}["vae"] == ["family vae"]


def test_inspect_shows_the_card(aigc, tmp_path):
    scores = ({"metric": "fid", "value": 1.5},)
    path = write_tiny_model(tmp_path / "tiny.onnx", intended_use="tests\x1b[2J only", scores=scores)
    shown = aigc("inspect", path).stdout
    card = sdk.load(path).card
    assert f"graph_sha256  {card.graph_sha256}\n" in shown
    assert "output        image, uint8 (8, 8, 1)\n" in shown
    assert "data          none, 1 items, {'train': 1}\n" in shown
    assert "score         fid, 1.5\n" in shown
    assert "control       label (choice): what it shows; one of cat, dog, owl, its index from 0 to 2," in shown
    assert "control       gain (number): brightness; a number from 0 to 2; default 1.0\n" in shown
    assert "intended_use  tests\\x1b[2J only\n" in shown
    assert f"file          {path}\n" in shown
    values = json.loads(aigc("inspect", path, "--json").stdout)
    assert values == {k: v for k, v in json.loads(card.to_json()).items() if k != "golden"}


def test_inspect_and_selftest_take_measures(aigc):
    shown = aigc("inspect", "digits-features").stdout
    assert "input         image, uint8 (28, 28, 1)" in shown and "output        value, float32 (64,)" in shown
    assert json.loads(aigc("inspect", "digits-features:classify", "--json").stdout)["task"] == "classify"
    assert aigc("selftest", "digits-features").stdout.startswith("passed: the values differ by at most")


def test_selftest_passes(aigc, tiny_path):
    done = aigc("selftest", tiny_path)
    assert (done.exit_code, done.stdout) == (0, "passed: 0.0e+00 of the values differ, by at most 0\n")


def test_selftest_that_fails_has_exit_code_1(aigc, tmp_path):
    graph = make_graph()
    card = make_card(graph)
    wrong = Golden.of(np.array(card.golden.seeds), {}, expected(card.golden.seeds, gain=0.5))
    golden = replace(card.golden, content=wrong.content)
    (tmp_path / "wrong.onnx").write_bytes(to_bytes(graph, make_card(graph, golden=golden)))
    done = aigc("selftest", tmp_path / "wrong.onnx")
    assert done.exit_code == 1
    assert done.stdout.startswith("FAILED: ")


def test_doctor_tells_what_is_installed(aigc, monkeypatch, tmp_path):
    monkeypatch.setenv("AIGC_SDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sdk, "plugins", lambda: [Plugin("flows", "my-flows", "1.0")])
    done = aigc("doctor")
    assert done.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["aigc-sdk"].startswith(f"{sdk.__version__}, Python 3.")
    assert "built with " in done.stdout and "CPUExecutionProvider" in done.stdout
    assert lines["cache"] == str(tmp_path / "cache")
    assert lines["plugins"] == "1 installed, 0 broken"


def test_doctor_looks_for_every_package_of_the_extras():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = {
        re.match(r"[\w-]+", requirement)[0]: extra
        for extra, requirements in project["optional-dependencies"].items()
        for requirement in requirements
        if extra not in ("all", "dev")
    }
    assert extras == cli._OPTIONAL


def test_doctor_with_a_broken_plugin_has_exit_code_1(aigc, monkeypatch):
    monkeypatch.setattr(sdk, "plugins", lambda: [Plugin("flows", "my-flows", "1.0", "failed", "ImportError: no")])
    done = aigc("doctor")
    assert done.exit_code == 1
    assert re.search(r"^broken plugin +flows \(my-flows 1.0\): ImportError: no$", done.stdout, re.MULTILINE)


def test_doctor_without_torch_says_how_to_install_it(aigc, monkeypatch):
    from importlib import metadata

    def version(name):
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert re.search(
        r"^torch +not installed; it comes with pip install 'aigc-sdk\[train\]'$", aigc("doctor").stdout, re.M
    )


def test_train_options_lists_the_familys_options(aigc):
    shown = aigc("train", "vae", "--options").stdout
    assert all(word in shown for word in ("latent", "learning_rate", "default", "dimensions of the latent"))


def test_train_writes_a_run_folder_and_reports_on_stderr(tmp_path):
    rows, columns = np.indices((8, 8))
    images = np.stack([(rows + columns + phase) // 2 % 2 * 255 for phase in range(4)] * 20).astype(np.uint8)
    np.savez(tmp_path / "stripes.npz", images=images, labels=np.arange(80) % 4)
    # Without the export, which takes longer than the training; its own tests are elsewhere.
    code = (
        "from aigc_sdk.training import loop; loop._export_all = lambda *_: None; from aigc_sdk.cli import main; main()"
    )
    options = [part for text in ("steps=2", "latent=4", "width=8", "blocks=0") for part in ("-c", text)]
    command = [sys.executable, "-c", code, "train", "vae", "stripes.npz", "--out", "run", "--seed", "3", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["seed"], record["config"]["latent"], record["labels"]) == (3, 4, ["0", "1", "2", "3"])


@pytest.fixture
def stripes_npz(tmp_path, stripes):
    """A file of stripes, and the arguments of a small training on it."""
    np.savez(tmp_path / "stripes.npz", images=stripes[0], labels=stripes[1])
    options = [part for text in ("steps=20", "latent=4", "width=8", "augment=flip,shift") for part in ("-c", text)]
    return ["train", "vae", tmp_path / "stripes.npz", *options]


def test_train_stopped_by_a_signal_prints_the_command_that_goes_on(aigc, stripes_npz, no_export, monkeypatch):
    from aigc_vae.family import VAE

    phases = VAE.phases
    with monkeypatch.context() as patch:
        patch.setattr(VAE, "phases", lambda family, step: os.kill(os.getpid(), signal.SIGTERM) or phases(family, step))
        stopped = aigc(*stripes_npz, "--out", "my run")
    assert stopped.exit_code == 143
    assert "stopped by SIGTERM at step 1" in stopped.stderr
    [command] = [line for line in stopped.stderr.splitlines() if line.startswith("To go on: ")]
    words = shlex.split(command.removeprefix("To go on: "))
    assert words[0] == "aigc" and words[-1] == "--resume" and "my run" in words
    assert aigc(*words[1:]).exit_code == 0
    lines = Path("my run", "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 20


def test_train_dry_run_prints_the_plan_and_writes_nothing(aigc, stripes_npz):
    done = aigc(*stripes_npz, "--dry-run")
    assert done.exit_code == 0, done.stderr
    for words in ("latent                 4", "('flip', 'shift')", "stripes, 300 items, 8 x 8 x 1", "at most 20"):
        assert words in done.stdout.replace("['flip', 'shift']", "('flip', 'shift')")
    assert all(name in done.stdout for name in ("fingerprint", "minutes", "disk, in MB", "validation", "0: "))
    assert not list(Path().iterdir())


def test_train_dry_run_of_many_files_tells_what_is_left_out_and_what_the_cache_takes(aigc, tmp_path, monkeypatch):
    monkeypatch.setenv("AIGC_SDK_CACHE", str(tmp_path / "cache"))
    levels = np.arange(200, dtype=np.uint8)[:, None, None] + np.zeros((8, 8), np.uint8)
    for i, image in enumerate(levels):
        sdk.Image(image[..., None], 0, None, 0).to_pil().save(Path(f"{i}.png"))
    Path("broken.png").write_bytes(b"no image")
    done = aigc("train", "vae", ".", "--dry-run", "-c", "latent=4", "-c", "width=8", "-c", "steps=3")
    assert done.exit_code == 0, done.stderr
    assert "left out               1 unreadable: broken.png" in done.stdout
    (pixels,) = (tmp_path / "cache" / "pixels").glob("*.bin")
    assert pixels.stat().st_size == 201 * 64 and "in the cache 0.0" in done.stdout
    assert not Path("model.onnx").exists() and len(list(Path().iterdir())) == 201


def test_export_hands_over_to_the_public_api_and_prints_the_path(aigc, monkeypatch, tmp_path):
    asked = []
    # An export takes half a minute; its own tests are elsewhere.
    monkeypatch.setattr(sdk, "export", lambda run, path, **how: asked.append((run, path, how)) or path)
    done = aigc("export", "run", tmp_path / "out.onnx", "--task", "interpolate")
    assert done.stdout == f"{tmp_path / 'out.onnx'}\n"
    assert asked == [(Path("run"), tmp_path / "out.onnx", {"task": "interpolate", "format": "onnx"})]


@pytest.mark.parametrize(
    "arguments", [["train", "vae", "x.npz", "--out", "run"], ["export", "run", "x.onnx"], ["train", "vae", "--options"]]
)
def test_training_without_torch_says_what_to_install(tmp_path, arguments):
    code = "import sys; sys.modules['torch'] = None; from aigc_sdk.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("aigc: ") and done.stderr.count("\n") == 1
    assert done.stderr.endswith(
        "needs the package 'torch', which is not installed. Run: pip install 'aigc-sdk[train]'\n"
    )


@pytest.mark.parametrize("command", ["generate", "inspect", "selftest"])
def test_task_named_in_two_ways_ends_in_one_line(fail, command):
    code, error = fail(command, "digits-vae:interpolate", "--task", "generate")
    assert code != 0 and "names the task 'interpolate', and task='generate' another one" in error
