"""The plugin author's page: its packages are built as it says and installed, and its lines run with them."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from aigc_sdk.generation import model_file

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = DOCS / "plugins" / "aigc-policy-example"
PAGE = (DOCS / "plugins.md").read_text(encoding="utf-8")

# A block is the file that the line before it names, or is run.
BLOCK = re.compile(r"(?:`(aigc-[\w/.-]+)`:\n\n)?```(?:python|toml)\n(.*?)```", re.DOTALL)


def section(title):
    """Return the files that a section of the page shows, and the lines that it runs."""
    (text,) = re.findall(rf"\n## {title}\n(.*?)(?=\n## )", PAGE, re.DOTALL)
    blocks = [match.groups() for match in BLOCK.finditer(text)]
    return {path: code for path, code in blocks if path}, [code for path, code in blocks if not path]


def install(project, site):
    """Do what an installer does with a pure Python project."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    shutil.copytree(project, site, dirs_exist_ok=True, ignore=shutil.ignore_patterns("pyproject.toml", "__pycache__"))
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = [f"{name} = {target}" for name, target in about["entry-points"]["aigc_sdk"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[aigc_sdk]", *lines, ""]))


@pytest.fixture
def run(tmp_path):
    """Run Python with a project installed, in an empty folder, and return what it printed."""
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()

    def run(project, code):
        install(project, site)
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], env=environment, cwd=here, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, here

    return run


def write(files, folder):
    for path, code in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code)


def test_generator_of_the_page_is_installed_and_keeps_the_contract(run, tmp_path):
    files, (code,) = section("A generator")
    write(files, tmp_path)
    _, here = run(tmp_path / "aigc-noise", code)
    assert len(list((here / "out").glob("*.png"))) == 4


def test_ready_made_model_of_the_page_is_installed_and_keeps_the_contract(run, tmp_path):
    files, (code,) = section("A ready-made model")
    write(files, tmp_path)
    package = tmp_path / "aigc-numerals" / "aigc_numerals"
    source = model_file("digits-vae")
    shutil.copy(source, package / "numerals.onnx")
    shutil.copy(source.with_suffix(".card.json"), package / "numerals.card.json")
    module, count = re.subn(
        r"[0-9a-f]{64}", hashlib.sha256(source.read_bytes()).hexdigest(), (package / "__init__.py").read_text()
    )
    assert count == 1
    (package / "__init__.py").write_text(module)
    run(tmp_path / "aigc-numerals", code)


def test_policy_of_the_page_is_the_example_and_does_what_it_says(run):
    _, (shown, code) = section("A policy")
    source = (EXAMPLE / "aigc_policy_example.py").read_text()
    assert shown in source
    assert f"it is {len(source.splitlines())} lines in all" in PAGE
    printed, here = run(EXAMPLE, code)
    assert printed == "The label 4 is blocked.\n"
    lines = [json.loads(line) for line in (here / "items.jsonl").read_text().splitlines()]
    assert [line["controls"]["label"] for line in lines] == [1, 2, 3]
    assert all({"time", "sha256", "seed", "graph_sha256"} <= line.keys() for line in lines)


def test_policy_of_the_page_refuses_what_the_seed_may_draw_and_what_cannot_be_logged(run):
    code = """
import os, aigc_sdk as sdk
os.environ["AIGC_POLICY_BLOCKED"] = "4"
for log in ("items.jsonl", "no/such/folder/items.jsonl"):
    os.environ["AIGC_POLICY_LOG"] = log
    for label in (-1, 3):
        try:
            sdk.generate("digits-vae", seed=1, label=label)
        except sdk.errors.AigcError as error:
            print(type(error).__name__, error)
print([plugin.state for plugin in sdk.plugins() if plugin.name == "policy-example"])
"""
    printed, here = run(EXAMPLE, code)
    refused, refused_again, failed, states = printed.splitlines()
    assert (
        refused
        == refused_again
        == ("Refused The label is left to the seed, which may draw a blocked one; name a label.")
    )
    told = "PluginError The plugin 'policy-example' of aigc-policy-example failed in aigc_after_generate: FileNotFound"
    assert failed.startswith(told)
    assert states == "['failed']"
    assert len((here / "items.jsonl").read_text().splitlines()) == 1
