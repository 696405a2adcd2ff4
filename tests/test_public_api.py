"""The public API: what is exported, what importing it loads, and what the wheel holds."""

import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import aigc_sdk
from aigc_sdk import errors

ROOT = Path(__file__).parents[1]
PLUGINS = ("plugins", "plugins/modalities", "plugins/families", "exporters")
HEAVY = ("torch", "onnxruntime", "onnx", "pandas", "scipy", "pydantic", "rich", "click", "PIL", "sklearn", "lightning")

# `python -c` with these imports leaves nothing of HEAVY behind.
LIGHT = (
    "import aigc_sdk",
    "import aigc_sdk; aigc_sdk.plugins(); aigc_sdk.models()",
    "import aigc_sdk.registry, aigc_sdk.contents, aigc_sdk.data, aigc_sdk.exporter, aigc_sdk.request",
)


def test_all_is_what_is_exported():
    private = {"TYPE_CHECKING", "Any", "Path", "annotations", "as_path", "missing_package", "unforked"}
    lazy = set(aigc_sdk._LATER)
    found = {
        name
        for name, value in vars(aigc_sdk).items()
        if not name.startswith("_") and name not in private and (not isinstance(value, ModuleType) or value is errors)
    }
    assert sorted(found | lazy) == aigc_sdk.__all__
    assert all(hasattr(aigc_sdk, name) for name in aigc_sdk.__all__)
    assert set(aigc_sdk.__all__) <= set(dir(aigc_sdk))


def test_public_names_have_docstrings():
    assert [name for name in aigc_sdk.__all__ if not getattr(aigc_sdk, name).__doc__] == []


def test_import_loads_nothing_heavy():
    for line in LIGHT:
        code = f"{line}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]", line


def packages_of_plugins():
    return [path for where in PLUGINS for path in (ROOT / where).glob("*/__init__.py")]


def test_every_plugin_and_exporter_is_in_the_wheel():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in packages_of_plugins()}
    assert set(packages) == {"aigc_sdk", *folders}
    assert len(packages) == len(set(packages))


def test_every_plugin_and_exporter_has_an_entry_point():
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["aigc_sdk"]
    folders = {path.parent.name for path in packages_of_plugins()}
    assert set(entries.values()) == folders


def test_folders_of_packages_are_no_packages():
    assert [name for name in (*PLUGINS, "tests", "benchmarks") if (ROOT / name / "__init__.py").exists()] == []


def test_package_is_marked_as_typed():
    assert (ROOT / "aigc_sdk" / "py.typed").exists()
    assert (Path(aigc_sdk.__file__).parent / "py.typed").exists()


def test_every_error_is_in_the_tree_drawn_at_the_top():
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    for name, value in classes.items():
        assert issubclass(value, errors.AigcError)
        if value is not errors.AigcError:
            builtin = value.__bases__[1].__name__
            assert any(name in line and f"({builtin})" in line for line in errors.__doc__.splitlines()), name
