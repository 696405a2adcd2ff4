"""The registry: real distributions on sys.path, good and broken; who wins a name; and what policy plugins may do."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, distributions
from itertools import count

import pytest

import aigc_sdk as sdk
import plugins as plugins_benchmark
from aigc_sdk import generation, registry
from aigc_sdk.errors import MissingPackage, PluginError, Refused, StorageError, UnknownName
from aigc_sdk.registry import Registry, default_registry

_numbers = count()

GOOD = """
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_families(register):
    register(sdk.FamilySpec(name="flow", target="json:loads"))
"""

# What a plugin can do wrong -> what the reason says.
BROKEN = {
    "import error": (
        "import no_such_package_anywhere",
        "ModuleNotFoundError: No module named 'no_such_package_anywhere'",
    ),
    "syntax error": ("def f(:", "SyntaxError"),
    "exit at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "no exception": (
        "class Panic(BaseException): pass\nraise Panic('of another language')",
        "Panic: of another language",
    ),
    "multi-line reason": ("raise ValueError('one\\ntwo')", "ValueError: one two"),
    "no hook": (
        "def aigc_register_families(register): register(1)",
        "implements no hook; is @aigc_sdk.hookimpl missing",
    ),
    "misspelt hook": (
        GOOD + "\n@sdk.hookimpl\ndef aigc_register_famlies(register): pass",
        "unknown hook 'aigc_register_famlies'",
    ),
    "wrong signature": (GOOD.replace("register)", "register, colour)"), "'colour'"),
    "raising hook": (GOOD + "    raise KeyError('flow')", "KeyError: 'flow'"),
    "exit in a hook": (GOOD + "    raise SystemExit", "SystemExit"),
    "wrong api_version": (
        GOOD.replace('loads"', 'loads", api_version=2'),
        "'flow' is written for api_version 2; this SDK takes 1",
    ),
    "wrong kind of spec": (GOOD.replace("FamilySpec", "ExporterSpec"), "registered ExporterSpec.*, not a FamilySpec"),
    "no spec": (GOOD.replace("sdk.FamilySpec", "dict"), "registered {'name': 'flow', .*, not a FamilySpec"),
    "bad name": (GOOD.replace('"flow"', '"My Flow"'), "'My Flow' is no name"),
    "no name": (GOOD.replace('"flow"', "7"), "name is 7, not str"),
    "no text": (GOOD.replace('loads"', 'loads", summary=["a", "b"]'), r"summary is \['a', 'b'\], not str"),
    "no target": (GOOD.replace("json:loads", "json"), "the target of 'flow' is 'json', not 'module:attribute'"),
    "error without words": (
        "class Wordless(Exception):\n  def __str__(self): raise self\nraise Wordless",
        r"Wordless: \(without words\)",
    ),
    "error that steers the terminal": (r"raise ValueError('\x1b[2J\udc00')", r"ValueError: \\x1b\[2J\\udc00"),
    "one hook without its mark": (
        GOOD + "\ndef aigc_before_generate(request): pass",
        "aigc_before_generate has no @aigc_sdk.hookimpl",
    ),
    "coroutine": (
        "import aigc_sdk as sdk\n@sdk.hookimpl\nasync def aigc_before_generate(request): pass",
        "aigc_before_generate is a coroutine or a generator; hooks are plain functions",
    ),
    "generator": (
        "import aigc_sdk as sdk\n@sdk.hookimpl\ndef aigc_after_generate(contents): yield contents",
        "aigc_after_generate is a coroutine or a generator",
    ),
    "wrapper": (
        "import aigc_sdk as sdk\n@sdk.hookimpl(wrapper=True)\ndef aigc_after_generate(contents): return (yield)",
        "aigc_after_generate is a coroutine or a generator",
    ),
    "no register": (
        GOOD.replace("(register)", "()"),
        "aigc_register_families does not take `register`, so it can register nothing",
    ),
    "registered twice": (
        GOOD + '    register(sdk.FamilySpec(name="flow", target="a:b"))',
        "'flow' is registered twice",
    ),
}


class Site:
    """A folder on sys.path with installed distributions, each with one plugin."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = []

    def install(self, distribution, code, entry=None, version="1.0", metadata=None):
        module = f"registry_plugin_{next(_numbers)}"
        self.modules.append(module)
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = (
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n" if metadata is None else metadata
        )
        if metadata:
            (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[aigc_sdk]\n{entry or distribution} = {module}\n")

    def entries(self):
        found = [entry for each in distributions(path=[str(self.folder)]) for entry in each.entry_points]
        assert all(isinstance(entry, EntryPoint) for entry in found)
        return found

    def registry(self, allowed=None):
        return Registry(self.entries(), allowed)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    site = Site(tmp_path)
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def fresh_default(monkeypatch):
    """The registry of this environment, loaded anew for this test alone."""
    monkeypatch.setattr(registry, "_default", None)
    monkeypatch.delenv("AIGC_SDK_PLUGINS", raising=False)


def states(found):
    return {plugin.name: plugin.state for plugin in found.plugins}


def offer(name, target="json:loads"):
    return GOOD.replace('"flow"', f'"{name}"').replace("json:loads", target)


def test_plugin_that_is_good_is_found_with_its_distribution(site):
    site.install("My_Flows", GOOD, "flows", "2.5")
    found = site.registry()
    (plugin,) = found.plugins
    assert (plugin.name, plugin.distribution, plugin.version) == ("flows", "my-flows", "2.5")
    assert (plugin.state, plugin.reason, plugin.provides) == ("loaded", "", ["family flow"])
    assert found.names("family") == ["flow"] and found.names("model") == []
    assert found.find("family", "flow") is found.find("family", "my-flows:flow")
    assert found.find("family", "flow").target == "json:loads"


@pytest.mark.parametrize("what", BROKEN)
def test_plugin_that_is_broken_is_recorded_and_harms_no_other(site, what):
    code, reason = BROKEN[what]
    site.install("a-good-one", offer("first"))
    site.install("broken", code)
    site.install("z-good-one", offer("last"))
    found = site.registry()
    assert states(found) == {"a-good-one": "loaded", "broken": "failed", "z-good-one": "loaded"}
    plugin = found.plugins[1]
    assert plugin.specs == []
    with pytest.raises(PluginError, match=f"^The plugin 'broken' of broken failed: .*{reason}") as raised:
        found.find("family", "broken")
    assert "\n" not in str(raised.value)
    with pytest.raises(PluginError, match=r"^The plugin 'broken' of broken failed"):
        found.find("family", "broken:flow")
    assert [found.find("family", name).name for name in ("first", "last")] == ["first", "last"]
    for name in ("flow", 5):
        with pytest.raises(
            UnknownName, match=rf"no family {name!r}.* Plugins that failed: broken; `aigc plugins` says"
        ):
            found.find("family", name)


def test_plugin_entry_that_names_no_attribute_is_recorded(site):
    site.install("broken", GOOD)
    (entry,) = site.entries()
    missing = EntryPoint(entry.name, entry.value + ":missing", entry.group)
    (plugin,) = Registry([missing]).plugins
    assert (plugin.state, plugin.distribution) == ("failed", "unknown")
    assert plugin.reason.startswith("AttributeError")


@pytest.mark.parametrize("value", ["", "two words", "a:b:c", "7 / 0"])
def test_plugin_entry_that_is_no_reference_is_recorded(value):
    (plugin,) = Registry([EntryPoint("broken", value, "aigc_sdk")]).plugins
    assert (plugin.state, plugin.reason) == (
        "failed",
        f"ValueError: its entry point is {value!r}, not 'module' or 'module:attribute'",
    )


def test_plugin_that_prints_does_not_print_on_stdout(site, capsys):
    site.install("talks", "print('hello')\n" + GOOD + "    print('flow')")
    assert states(site.registry()) == {"talks": "loaded"}
    assert capsys.readouterr() == ("", "hello\nflow\n")


def test_plugin_may_be_an_object(site):
    code = GOOD.replace("@sdk.hookimpl\ndef", "class Plugin:\n  @staticmethod\n  @sdk.hookimpl\n  def").replace(
        "    reg", "      reg"
    )
    site.install("objects", code + "\nplugin = Plugin()")
    (entry,) = site.entries()
    assert Registry([EntryPoint(entry.name, entry.value + ":plugin", entry.group)]).names("family") == ["flow"]


@pytest.mark.parametrize("metadata", ["", "Metadata-Version: 2.1\n"])
def test_plugin_of_a_damaged_distribution_harms_no_other(site, metadata):
    site.install("damaged", offer("first"), metadata=metadata)
    site.install("good", offer("last"))
    found = site.registry()
    assert {plugin.distribution for plugin in found.plugins} == {"unknown", "good"}
    assert found.names("family") == ["first", "last"]


@pytest.mark.parametrize("text", [b"[aigc_sdk]\n\xff\xfe = x\n", b"[aigc_sdk]\nno equals sign\n"])
def test_distribution_with_unreadable_entry_points_harms_no_other(site, fresh_default, text):
    site.install("good", offer("first"))
    site.install("damaged", GOOD, version="2.0")
    (site.folder / "damaged-2.0.dist-info" / "entry_points.txt").write_bytes(text)
    found = default_registry()
    assert found.find("family", "first").name == "first"
    assert {"vae", "flow"} & set(found.names("family")) == {"vae"}
    (plugin,) = [plugin for plugin in found.plugins if plugin.state == "failed"]
    assert (plugin.name, plugin.distribution, plugin.version) == ("damaged", "damaged", "2.0")
    assert plugin.reason.startswith("entry_points.txt: ")


def test_plugin_that_asks_for_plugins_while_it_is_loaded_is_recorded(site, fresh_default):
    site.install("asks", "import aigc_sdk as sdk\nsdk.models()")
    site.install("good", offer("first"))
    assert "first" in default_registry().names("family")
    assert [plugin.reason for plugin in default_registry().plugins if plugin.state == "failed"] == [
        "PluginError: A plugin asks for plugins or models while the plugins are being loaded; ask later."
    ]


def test_default_registry_is_loaded_once_for_many_threads(site, fresh_default):
    site.install("slow", "import time\ntime.sleep(0.2)\n" + offer("first"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: default_registry(), range(8)))
    assert all(each is found[0] for each in found)
    assert "first" in found[0].names("family")
    assert sys.stdout is not sys.stderr


def test_plugin_interrupted_by_the_user_interrupts(site):
    site.install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.registry()


def test_plugins_are_in_the_order_of_their_names_the_built_in_first(site):
    for distribution, entry in (("b", "x"), ("a", "x"), ("c", "w"), ("aigc-sdk", "zoo")):
        site.install(distribution, offer(f"of-{distribution}"), entry)
    found = [(plugin.name, plugin.distribution) for plugin in site.registry().plugins]
    assert found == [("zoo", "aigc-sdk"), ("w", "c"), ("x", "a"), ("x", "b")]


def test_name_of_two_strangers_goes_to_neither(site):
    site.install("one", offer("flow", "json:loads"))
    site.install("two", offer("flow", "json:dumps"))
    found = site.registry()
    with pytest.raises(PluginError, match="Several plugins offer the family 'flow'; pick one of: one:flow, two:flow"):
        found.find("family", "flow")
    assert found.find("family", "one:flow").target == "json:loads"
    assert found.find("family", "two:flow").target == "json:dumps"
    assert {plugin.name: plugin.notes for plugin in found.plugins} == {
        "one": ["family flow: also offered by two; ask for one:flow"],
        "two": ["family flow: also offered by one; ask for two:flow"],
    }


def test_name_of_a_built_in_stays_with_it(site):
    site.install("aigc-sdk", offer("flow", "json:loads"))
    site.install("stranger", offer("flow", "json:dumps"))
    found = site.registry()
    assert found.find("family", "flow").target == "json:loads"
    assert found.find("family", "aigc-sdk:flow").target == "json:loads"
    assert found.find("family", "stranger:flow").target == "json:dumps"
    assert found.names("family") == ["flow"]
    assert {plugin.name: plugin.notes for plugin in found.plugins} == {
        "aigc-sdk": [],
        "stranger": ["family flow: hidden by aigc-sdk; ask for stranger:flow"],
    }


def test_name_that_is_unknown_gets_the_nearest(site):
    site.install("one", GOOD)
    with pytest.raises(UnknownName, match=r"no family 'flew'. Did you mean 'flow'\? There are: flow"):
        site.registry().find("family", "flew")


def test_allow_list_disables_the_others_but_no_built_in(site):
    site.install("aigc-sdk", offer("first"), "own")
    site.install("one", offer("second"))
    site.install("two", "raise RuntimeError('was imported')")
    found = site.registry(frozenset({"one"}))
    assert states(found) == {"own": "loaded", "one": "loaded", "two": "disabled"}
    with pytest.raises(PluginError, match="The plugin 'two' of two disabled: AIGC_SDK_PLUGINS does not name it"):
        found.find("family", "two")


def test_allow_list_with_a_name_that_is_not_installed_warns(site, monkeypatch, fresh_default, caplog):
    monkeypatch.setenv("AIGC_SDK_PLUGINS", "polcy,")
    default_registry()
    assert caplog.messages == ["AIGC_SDK_PLUGINS names plugins that are not installed: polcy"]


@pytest.mark.parametrize(
    ("variable", "loaded"), [(None, ["one", "two"]), ("", []), ("one", ["one"]), (" two , one ", ["one", "two"])]
)
def test_allow_list_comes_from_the_environment(site, monkeypatch, fresh_default, variable, loaded):
    site.install("one", offer("first"))
    site.install("two", offer("second"))
    if variable is None:
        monkeypatch.delenv("AIGC_SDK_PLUGINS", raising=False)
    else:
        monkeypatch.setenv("AIGC_SDK_PLUGINS", variable)
    found = default_registry()
    strangers = [plugin for plugin in found.plugins if plugin.name in ("one", "two")]
    assert [plugin.name for plugin in strangers if plugin.state == "loaded"] == loaded
    assert all(plugin.state == "loaded" for plugin in found.plugins if plugin.distribution == "aigc-sdk")


def test_installed_distributions_are_shown_by_the_command_line(site):
    site.install("my-flows", offer("flow", "nowhere:X"), "flows")
    site.install("my-broken", "import no_such_package_anywhere", "broken")
    site.install("hides", "print('I am no JSON')\n" + offer("vae", "aigc_vae.family:VAE"))
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    environment.pop("AIGC_SDK_PLUGINS", None)
    command = [sys.executable, "-c", "from aigc_sdk.cli import main; main()"]
    done = subprocess.run([*command, "plugins", "--json"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["flows"] == {
        "name": "flows",
        "distribution": "my-flows",
        "version": "1.0",
        "state": "loaded",
        "provides": ["family flow"],
        "reason": "",
        "notes": [],
    }
    assert rows["broken"]["state"] == "failed"
    assert rows["broken"]["reason"] == "ModuleNotFoundError: No module named 'no_such_package_anywhere'"
    assert {"vae", "onnx", "zoo"} <= rows.keys()
    done = subprocess.run([*command, "doctor", "--json"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["broken"] == [
        "broken (my-broken 1.0): ModuleNotFoundError: No module named 'no_such_package_anywhere'",
        "flows (my-flows 1.0): family flow: 'flow' cannot be loaded from 'nowhere:X':"
        " ModuleNotFoundError: No module named 'nowhere'.",
    ]
    assert told["notes"] == ["hides (hides 1.0): family vae: hidden by aigc-sdk; ask for hides:vae"]


def test_plugin_with_a_hook_of_a_later_version_loads_without_it_and_says_so(site):
    later = "\n@sdk.hookimpl\ndef aigc_register_dreams(register): pass"
    site.install("ahead", offer("first") + later)
    (plugin,) = site.registry().plugins
    assert plugin.state == "loaded" and plugin.provides == ["family first"]
    assert plugin.notes == ["aigc_register_dreams: no hook of this version of aigc-sdk; it is never called"]


def test_many_plugins_ten_of_them_broken_cost_little_and_harm_no_other(tmp_path):
    wanted = plugins_benchmark.install_all(tmp_path, 14)
    mistakes = plugins_benchmark.count_mistakes(tmp_path, wanted, 14)
    assert len(wanted) == 10 and {what: count for what, count in mistakes.items() if count} == {}
    own_ms, without_ms = (min(plugins_benchmark.listing(folder)()[1] for _ in range(3)) for folder in (tmp_path, None))
    assert own_ms <= 4 * without_ms


def test_models_skips_a_name_that_two_strangers_claim(site, monkeypatch):
    code = """
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_models(register):
    register(sdk.ModelSpec(name="both", package=__name__, files={"generate": sdk.ModelFile("x.onnx", "0" * 64)}))
"""
    site.install("one", code)
    site.install("two", code.replace("both", "mine"))
    monkeypatch.setattr(generation, "default_registry", site.registry)
    assert [model.name for model in sdk.models()] == ["both", "mine"]
    site.install("three", code)
    assert [model.name for model in sdk.models()] == ["mine"]
    with pytest.raises(PluginError, match="pick one of: one:both, three:both"):
        sdk.load("both")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('ModelSpec(name="x", package="p", files={})', "the files of 'x' are {}; give a ModelFile for each task"),
        ('ModelSpec(name="x", package="p", files={"generate": "x.onnx"})', "'x.onnx'}; give a ModelFile"),
        ('GeneratorSpec(name="x", target="a:b", tasks=())', r"'x' has the tasks \(\); give a tuple of at least one"),
        ('GeneratorSpec(name="x", target="a:b", tasks=["a"])', r"'x' has the tasks \['a'\]; give a tuple"),
        ('GeneratorSpec(name="x", target="a:b", tasks="generate")', "'x' has the tasks 'generate'; give a tuple"),
        ('GeneratorSpec(name="x", target="a:b", tasks=(1,))', r"'x' has the tasks \(1,\); give a tuple"),
        ('ModelSpec(name="x", package="p", files=["x.onnx"])', r"'x' are \['x.onnx'\]; give a ModelFile"),
        ('ModelSpec(name="x", package="p", files={1: sdk.ModelFile("x", "0")})', "{1: ModelFile.*; give a ModelFile"),
        ('ModelSpec(name="x", package="p", files={"generate": sdk.ModelFile(1, "0")})', "TypeError: a ModelFile of 1"),
        ('FamilySpec(name="x", target="a:b", modalities=(1,))', r"'x' has the modalities \(1,\); give a tuple"),
    ],
)
def test_spec_without_files_or_tasks_fails_when_registered(site, change, reason):
    hook = "generators" if change.startswith("Generator") else "models"
    site.install("one", GOOD.replace("families", hook).split("    register(")[0] + f"    register(sdk.{change})")
    with pytest.raises(PluginError, match=reason):
        site.registry().find("model", "one")


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (
            "no_such_module_here:X",
            PluginError,
            "'flow' cannot be loaded from 'no_such_module_here:X': ModuleNotFoundError",
        ),
        ("json:no_such_name", PluginError, "AttributeError: module 'json' has no attribute 'no_such_name'"),
        ("json:loads", PluginError, r"<function loads at .* is no subclass of aigc_sdk.training.family.Family"),
        ("json:JSONDecoder", PluginError, r"<class 'json.*> is no subclass of aigc_sdk.training.family.Family"),
        ("{exits}:X", PluginError, "SystemExit: 3"),
        ("{fails}:X", PluginError, "ZeroDivisionError"),
        ("{panics}:X", PluginError, "Panic: of another language"),
        (
            "{needs}:X",
            MissingPackage,
            r"needs the package 'no_such_package_anywhere', .*: pip install 'my-flows\[all\]'",
        ),
    ],
)
def test_spec_target_that_cannot_be_imported_raises_when_asked_for(site, target, error, message):
    site.install("exits", "raise SystemExit(3)")
    site.install("fails", "1 / 0")
    site.install("needs", "import no_such_package_anywhere")
    site.install("panics", BROKEN["no exception"][0])
    target = target.format(**dict(zip(("exits", "fails", "needs", "panics"), site.modules, strict=True)))
    spec = sdk.FamilySpec(name="flow", target=target, extra="all", distribution="my-flows")
    with pytest.raises(error, match=message):
        spec.resolve()


def test_spec_target_without_an_extra_is_a_plugin_error(site):
    site.install("needs", "import no_such_package_anywhere")
    with pytest.raises(PluginError, match="No module named 'no_such_package_anywhere'"):
        sdk.FamilySpec(name="flow", target=f"{site.modules[0]}:X").resolve()


def test_model_that_points_nowhere_raises_when_asked_for_and_is_found_by_the_check(site, monkeypatch):
    code = """
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_models(register):
    for name, package, path in (("a", "nowhere_at_all", "x"), ("b", "exits_here", "x"), ("c", "json", "x.onnx"),
                                ("d", "json", "__init__.py"), ("e", "json", "x\\0.onnx")):
        register(sdk.ModelSpec(name=name, package=package, files={"generate": sdk.ModelFile(path, "0" * 64)}))
"""
    site.install("models", code)
    (site.folder / "exits_here.py").write_text("raise SystemExit(3)")
    found = site.registry()
    monkeypatch.setattr(generation, "default_registry", lambda: found)
    with pytest.raises(PluginError, match="'a' is not in the package 'nowhere_at_all': ModuleNotFoundError"):
        sdk.load("a")
    with pytest.raises(PluginError, match="'b' is not in the package 'exits_here': SystemExit: 3"):
        sdk.generate("b")
    with pytest.raises(StorageError, match=r"Cannot read .*x\.onnx"):
        sdk.load("c")
    errors = {name: str(error) for name, error in found.plugins[0].check().items()}
    assert list(errors) == ["model a", "model b", "model c", "model d", "model e"]
    assert "has no file for generate: ValueError: embedded null byte" in errors["model e"]
    assert "has no file for generate: FileNotFoundError" in errors["model c"]
    assert re.search(r"__init__\.py of 'd' has the sha256 [0-9a-f]{64}, not 0{64}", errors["model d"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 5", r"TypeError: .*:make returned 5, which is no Generator"),
        ("raise SystemExit(3)", "The generator 'noise' cannot start: SystemExit: 3"),
        ("raise ValueError('no')", "The generator 'noise' cannot start: ValueError: no"),
    ],
)
def test_generator_that_cannot_start_is_a_plugin_error(site, monkeypatch, body, message):
    code = GOOD.replace("families", "generators").split("    register(")[0]
    code += f"    register(sdk.GeneratorSpec(name='noise', target=__name__ + ':make'))\ndef make(task):\n    {body}"
    site.install("noise", code)
    found = site.registry()
    monkeypatch.setattr(generation, "default_registry", lambda: found)
    with pytest.raises(PluginError, match=message):
        sdk.load("noise")


BEFORE = "import aigc_sdk as sdk\n@sdk.hookimpl\ndef aigc_before_generate(request):\n    "
AFTER = "import aigc_sdk as sdk\n@sdk.hookimpl\ndef aigc_after_generate(request, contents):\n    "


@pytest.fixture
def policies(site, monkeypatch):
    """Install policy plugins by their code and make them those of this environment."""

    def install(*codes):
        for i, code in enumerate(codes):
            site.install(f"policy-{i}", code)
        found = site.registry()
        assert all(plugin.state == "loaded" for plugin in found.plugins)
        monkeypatch.setattr(generation, "default_registry", lambda: found)
        return [sys.modules[module] for module in site.modules]

    return install


def test_policy_before_sees_the_whole_request_and_goes_on(policies, tiny):
    (module,) = policies(BEFORE.replace("@", "seen = []\n@", 1) + "seen.append(request); return 'ignored'")
    contents = tiny.generate(2, seed=7, label="owl")
    (request,) = module.seen
    assert (request.n, request.card, request.seeds[0]) == (2, tiny.card, 7)
    assert request.controls["label"].tolist() == [2, 2]
    assert len(contents) == 2


def test_policy_before_refuses_and_nothing_is_made(policies, tiny):
    policies(BEFORE + "raise sdk.errors.Refused('no')")
    tiny.close()  # running it now would be another error
    with pytest.raises(Refused, match=r"^no$"):
        tiny.generate(2)


def test_policy_before_refuses_by_what_is_asked(policies, tiny):
    policies(BEFORE + "if 2 in request.controls['label']: raise sdk.errors.Refused('no owls')")
    assert len(tiny.generate(label="cat")) == 1
    with pytest.raises(Refused, match="no owls"):
        tiny.generate(label=["cat", "owl"])


def test_policy_after_refuses_and_nothing_is_returned(policies, tiny):
    policies(AFTER + "raise sdk.errors.Refused('too bright')")
    with pytest.raises(Refused, match="too bright"):
        tiny.generate(2)


def test_policy_after_passes_on_or_replaces_in_the_order_of_names(policies, tiny):
    darker = "sdk.Image(item.data // 2, item.seed, item._origin, item._controls)"
    darken = AFTER + f"return sdk.Contents({darker} for item in contents)"
    plain = tiny.generate(3, seed=7).to_numpy()
    policies(darken, AFTER + "return None", darken)
    replaced = tiny.generate(3, seed=7)
    assert (replaced.to_numpy() == plain // 2 // 2).all()
    assert replaced[0].provenance["seed"] == 7


@pytest.mark.parametrize(
    "returned",
    [
        "contents[:1]",
        "contents[::-1]",
        "contents + contents",
        "contents[1:] + contents[:1]",
        "list(contents)",
        "True",
        "[]",
    ],
)
def test_policy_after_that_returns_other_items_is_an_error(policies, tiny, returned):
    policies(AFTER + f"return {returned}")
    with pytest.raises(
        PluginError,
        match=r"'policy-0' of policy-0 failed in aigc_after_generate: TypeError: it returned .* keep the items",
    ):
        tiny.generate(3)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (BEFORE + "raise SystemExit(3)", "SystemExit: 3"),
        (BEFORE + "raise KeyError('owl')", "KeyError: 'owl'"),
        (AFTER + "return contents[:1]", "TypeError: it returned <Contents: 1 x Image>"),
        (BEFORE + "class Panic(BaseException): pass\n    raise Panic", "Panic"),
    ],
)
def test_policy_that_fails_stops_the_request_is_listed_and_is_asked_again(policies, tiny, code, reason):
    policies(code, BEFORE + "pass")
    for _ in range(2):
        with pytest.raises(PluginError, match=f"'policy-0' of policy-0 failed in .*{reason}"):
            tiny.generate(3)
    failed, good = sdk.plugins()
    assert (failed.name, failed.state, good.state) == ("policy-0", "failed", "loaded")
    assert failed.reason.startswith(reason)


def test_policy_that_refuses_has_not_failed(policies, tiny):
    policies(BEFORE + "raise sdk.errors.Refused('no')")
    with pytest.raises(Refused):
        tiny.generate(3)
    assert [plugin.state for plugin in sdk.plugins()] == ["loaded"]


def test_policy_that_the_user_interrupts_interrupts(policies, tiny):
    policies(BEFORE + "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        tiny.generate(3)


def test_policy_of_a_disabled_plugin_is_not_asked(site, monkeypatch, tiny):
    site.install("policy", BEFORE + "raise sdk.errors.Refused('no')")
    found = site.registry(frozenset())
    monkeypatch.setattr(generation, "default_registry", lambda: found)
    assert len(tiny.generate(2)) == 2
