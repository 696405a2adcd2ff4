"""The contract's checks: everything registered passes them, and each of them catches what it is for."""

import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import onnx
import pytest
import torch
from pydantic import Field
from torch import nn

import aigc_sdk as sdk
from aigc_sdk import testing
from aigc_sdk.card import Control, Golden, OutputSpec
from aigc_sdk.errors import ContractBroken, UnknownName
from aigc_sdk.generation import model_file, open_generator
from aigc_sdk.generator import Generator
from aigc_sdk.kinds import ChoiceKind
from aigc_sdk.registry import Registry, default_registry
from aigc_sdk.runtime import OnnxMeasure
from aigc_sdk.testing import CHECKS, families, measures, models, plugins
from aigc_sdk.testing.checks import run_checks
from aigc_sdk.testing.families import FamilyCase
from aigc_sdk.testing.models import ModelCase
from aigc_sdk.training import Family, FamilyConfig, Losses
from tiny_measure import contents, make_measure_card, make_measure_graph, write_tiny_measure
from tiny_model import make_card, make_graph, to_bytes, write_pixel_model, write_tiny_model

PLUGINS = [plugin.name for plugin in sdk.plugins() if plugin.distribution == "aigc-sdk"]
FAMILIES = [spec.name for plugin in sdk.plugins() for kind, spec in plugin.specs if kind == "family"]
MODELS = [(model.name, task) for model in sdk.models() if model.kind == "model" for task in model.tasks]
MEASURES = [(model.name, task) for model in sdk.models() if model.kind == "measure" for task in model.tasks]

# What a measure is made for that is made for the contents at hand; for the others it has no meaning.
MADE_FOR = (24, 20, 3)

# Finished runs that the tests share anyway, by family; another family is trained and exported for its check.
RUNS = {"vae": "trained", "gan": "trained_gan", "rnn": "trained_rnn", "music-rnn": "trained_music"}


def named(check):
    return check.__name__


@pytest.fixture(scope="session")
def family_cases(request):
    """One case for each family, so that it is trained once for all of its checks."""
    cases = {}

    def case(name):
        if name not in cases:
            folder = request.getfixturevalue(RUNS[name]).folder if name in RUNS else None
            cases[name] = FamilyCase(default_registry().find("family", name), run_folder=folder)
        return cases[name]

    return case


@pytest.mark.parametrize("check", CHECKS["plugin"], ids=named)
@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_keeps_the_contract(name, check):
    for plugin in testing.find_plugins(name):
        check(plugin)


@pytest.mark.parametrize("check", CHECKS["family"], ids=named)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_contract(name, check, family_cases):
    check(family_cases(name))


@pytest.mark.parametrize("check", CHECKS["model"], ids=named)
@pytest.mark.parametrize(("name", "task"), MODELS)
def test_every_ready_made_model_keeps_the_contract(name, task, check):
    check(testing.model_case(name, task))


@pytest.mark.parametrize("check", CHECKS["measure"], ids=named)
@pytest.mark.parametrize(("name", "task"), MEASURES)
def test_every_ready_made_measure_keeps_the_contract(name, task, check):
    check(testing.measure_case(name, task, MADE_FOR))


def test_check_model_of_a_measure_runs_the_checks_of_measures():
    for name in ("digits-features", "efficientnet-lite0"):
        assert testing.check_model(name, shape=MADE_FOR) == [check.__name__ for check in CHECKS["measure"]]


def test_measure_without_its_card_beside_fails(tmp_path):
    with pytest.raises(ContractBroken, match=r"check_measure_card_lies_beside_the_file .* found none"):
        testing.check_model(write_tiny_measure(tmp_path / "alone.onnx"))


class Spoilt:
    """A measure in numpy, spoilt by `values`."""

    card = make_measure_card(make_measure_graph())

    def __init__(self, values):
        self.run = lambda content: np.asarray(values(content), np.float32)


@pytest.mark.parametrize(
    ("values", "check"),
    [
        (lambda content: np.zeros((len(content), 3)), "check_other_contents_have_other_values"),
        (lambda content: content.mean((1, 2)) - content.mean(), "check_values_do_not_depend_on_others"),
    ],
)
def test_measure_that_is_spoilt_fails_its_check(values, check, tmp_path):
    with pytest.raises(ContractBroken, match=check):
        run_checks("The measure", CHECKS["measure"][-2:], measures.MeasureCase(Spoilt(values), tmp_path))


def test_measure_whose_graph_breaks_a_rule_fails(tmp_path):
    path = write_tiny_measure(tmp_path / "tiny.onnx")
    graph = make_measure_graph()
    graph.graph.node.append(onnx.helper.make_node("RandomUniform", [], ["unused"], shape=[1]))
    (tmp_path / "random.onnx").write_bytes(to_bytes(graph, make_measure_card(graph)))
    case = measures.MeasureCase(OnnxMeasure.open(path), tmp_path / "random.onnx")
    with pytest.raises(ContractBroken, match=r"check_measure_file_keeps_the_rules .*it uses RandomUniform"):
        run_checks("The measure", CHECKS["measure"], case)


def test_check_model_of_a_measure_with_other_golden_values_fails(tmp_path):
    golden = Golden.of(np.zeros(0, np.int64), {"content": contents(4)}, np.ones((4, 3), np.float32))
    path = write_tiny_measure(tmp_path / "other.onnx", golden=golden)
    path.with_suffix(".card.json").write_text(make_measure_card(make_measure_graph(), golden=golden).to_json())
    with pytest.raises(ContractBroken, match=r"check_golden_values_are_measured .*the values differ by at most"):
        testing.check_model(path)


def test_every_check_says_its_rule_and_is_in_the_table():
    listed = [check for checks in CHECKS.values() for check in checks]
    assert all(re.fullmatch(r"[A-Z][^\n]*\.(\n.*)?", check.__doc__, re.DOTALL) for check in listed)
    modules = (models, measures, families, plugins)
    written = {name for module in modules for name in vars(module) if re.match("check_(?!items$)", name)}
    assert {check.__name__ for check in listed} == written


def test_checks_are_listed_without_heavy_imports():
    code = f"import sys, aigc_sdk.testing; print({set(plugins.HEAVY)!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Models: a ready-made one is good, and each of these is spoilt in one way.


@pytest.fixture
def tiny_with_card(tiny_path):
    tiny_path.with_suffix(".card.json").write_text(sdk.load(tiny_path).card.to_json())
    return tiny_path


def test_check_model_of_a_good_file_runs_every_check():
    path = model_file("digits-vae")
    assert testing.check_model(path) == [check.__name__ for check in CHECKS["model"]]


def test_check_model_of_a_file_that_has_changed_names_the_check_and_the_rule(tiny_with_card):
    tiny_with_card.with_suffix(".card.json").write_text("{}")
    message = (
        r"^The model tiny:generate fails check_card_lies_beside_the_file \(The card inside .*\): expected the card of"
        r" tiny.onnx in tiny.card.json, found another\.$"
    )
    with pytest.raises(ContractBroken, match=message) as raised:
        testing.check_model(tiny_with_card)
    assert isinstance(raised.value, AssertionError)


def test_check_model_without_the_card_beside_fails(tiny_path):
    with pytest.raises(ContractBroken, match=r"expected the file tiny.card.json, found none"):
        testing.check_model(tiny_path)


def test_check_model_whose_graph_breaks_a_rule_fails(tmp_path):
    graph = make_graph()
    graph.graph.node.append(onnx.helper.make_node("RandomUniform", [], ["unused"], shape=[1]))
    (tmp_path / "random.onnx").write_bytes(to_bytes(graph, make_card(graph)))
    case = ModelCase(open_generator(write_tiny_model(tmp_path / "a.onnx")), tmp_path / "random.onnx")
    with pytest.raises(ContractBroken, match=r"check_file_keeps_the_rules .*it uses RandomUniform"):
        run_checks("The model", CHECKS["model"], case)


def test_check_model_with_other_golden_items_fails(tmp_path):
    graph = make_graph()
    golden = make_card(graph).golden
    other = Golden.of(np.array(golden.seeds), {}, golden.array("uint8") // 2)
    path = write_tiny_model(tmp_path / "tiny.onnx", golden=replace(golden, content=other.content))
    path.with_suffix(".card.json").write_text(make_card(graph, golden=replace(golden, content=other.content)).to_json())
    with pytest.raises(ContractBroken, match=r"check_golden_items_are_made .* of the values differ"):
        testing.check_model(path)


class Noise(Generator):
    """A generator in numpy: 4 x 4 pixels from the seed, `label` and `level`; a subclass spoils something."""

    label = Control(name="label", kind="choice", choices=("dark", "light"), default=-1, help="how bright")
    level = Control(name="level", kind="number", minimum=0, maximum=1, default=0.5, help="of the noise")
    provider = "numpy"

    def __init__(self, task="generate"):
        graph = make_graph()
        self.card = make_card(
            graph,
            controls=(self.label, self.level),
            output=OutputSpec(dtype="uint8", shape=(4, 4, 1)),
            golden=None,
            task=task,
        )

    def run(self, seeds, controls, *, deadline=None):
        noise = [np.random.default_rng(int(seed)).integers(0, 100, (4, 4, 1)) for seed in seeds]
        label = np.where(controls["label"] < 0, seeds % 2, controls["label"])
        levels = np.stack(noise) * controls["level"][:, None, None, None] + 100 * label[:, None, None, None]
        return {"content": levels.astype(np.uint8)}


class WrongShape(Noise):
    def run(self, seeds, controls, *, deadline=None):
        return {"content": super().run(seeds, controls)["content"][:, :3]}


class FailsAtTheEdge(Noise):
    def run(self, seeds, controls, *, deadline=None):
        if (controls["level"] == 1).any():
            raise ZeroDivisionError("at 1")
        return super().run(seeds, controls)


class LooksAtNeighbours(Noise):
    def run(self, seeds, controls, *, deadline=None):
        return {"content": super().run(seeds, controls)["content"] + np.uint8(len(seeds) % 2)}


class Forgets(Noise):
    count = 0

    def run(self, seeds, controls, *, deadline=None):
        Forgets.count += 1
        return {"content": super().run(seeds, controls)["content"] + np.uint8(len(seeds) == 16) * Forgets.count}


class IgnoresTheSeed(Noise):
    def run(self, seeds, controls, *, deadline=None):
        return super().run(np.zeros_like(seeds), controls)


class TakesMinusOneForDarker(Noise):
    def run(self, seeds, controls, *, deadline=None):
        content = super().run(seeds, {**controls, "label": np.zeros_like(seeds)})["content"]
        return {"content": content + (50 * (controls["label"] + 1)[:, None, None, None]).astype(np.uint8)}


def test_good_generator_passes():
    names = run_checks("Noise", models.GENERATOR_CHECKS, ModelCase(Noise()))
    assert len(names) == len(models.GENERATOR_CHECKS)


def test_model_with_controls_of_pixels_passes(tmp_path):
    case = testing.model_case(write_pixel_model(tmp_path / "pixels.onnx"))
    assert any(control.default is None for control in case.generator.card.controls)
    assert len(run_checks("pixels", models.GENERATOR_CHECKS, case)) == len(models.GENERATOR_CHECKS)


@pytest.mark.parametrize(
    ("generator", "check", "message"),
    [
        (WrongShape, "check_content_is_as_declared", r"returned uint8 \(1, 3, 4, 1\) for 1 items"),
        (FailsAtTheEdge, "check_edges_of_controls_run", "ZeroDivisionError: at 1"),
        (LooksAtNeighbours, "check_items_do_not_depend_on_others", "expected item 0 as it is among 64, found another"),
        (Forgets, "check_seed_decides", "expected the same items of the same seeds, found others at"),
        (IgnoresTheSeed, "check_seed_decides", "expected other items of other seeds, found one for 16 seeds"),
        (TakesMinusOneForDarker, "check_choice_may_be_left_to_the_seed", "with label = -1 to be that of one of its"),
    ],
)
def test_generator_that_is_spoilt_is_caught_by_name(generator, check, message):
    with pytest.raises(ContractBroken, match=f"{check} .*{message}"):
        run_checks("Noise", models.GENERATOR_CHECKS, ModelCase(generator()))


def test_generator_with_nan_is_caught():
    class NotANumber(Noise):
        def __init__(self):
            super().__init__()
            self.card = replace(self.card, output=OutputSpec(dtype="float32", shape=(4, 4, 1)))

        def run(self, seeds, controls, *, deadline=None):
            return {"content": np.full((len(seeds), 4, 4, 1), np.nan, np.float32)}

    with pytest.raises(ContractBroken, match="expected finite content, found NaN or infinity in item 0 of 1"):
        models.check_content_is_as_declared(ModelCase(NotANumber()))


def test_generator_whose_request_is_no_prefix_is_caught():
    class Counts(Noise):
        def run(self, seeds, controls, *, deadline=None):
            return super().run(seeds + len(seeds), controls)

    with pytest.raises(ContractBroken, match="expected item 0 of 10, found another one in a request for 3"):
        models.check_shorter_request_is_a_prefix(ModelCase(Counts()))


def test_control_that_takes_what_is_out_of_range_is_caught(monkeypatch):
    case = ModelCase(Noise())
    models.check_values_out_of_range_are_refused(case)
    monkeypatch.setattr(ChoiceKind, "accepts", lambda self, control, value: isinstance(value, int | float))
    with pytest.raises(ContractBroken, match=r"expected label = .* to be refused; one of dark, light"):
        models.check_values_out_of_range_are_refused(case)


# Families: a small one is good, and each of these spoils it in one way.


class SmallConfig(FamilyConfig):
    rate: float = Field(0.1, gt=0, description="learning rate of this family, per step")


class Sampler(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, seed, controls):
        levels = (seed[:, None] * 37 + torch.arange(self.mean.numel())) % 128
        content = self.spoil(levels) + self.mean.flatten() * 100 * controls["gain"][:, None]
        return content.clamp(0, 255).to(torch.uint8).reshape(-1, *self.mean.shape)

    def spoil(self, levels):
        return levels


class MixingSampler(Sampler):
    def spoil(self, levels):
        return levels + levels.shape[0] % 5 * 10


class Small(Family):
    """Learns the mean image."""

    modality = "image"

    Config = SmallConfig
    tasks = ("generate",)
    sampler_class = Sampler

    def build(self, data):
        self.shape = data.shape
        self.mean = nn.Parameter(torch.rand(data.shape))

    def optimizers(self):
        return {"all": torch.optim.SGD(self.parameters(), lr=self.config.rate)}

    def phases(self, step):
        return ("all",)

    def training_step(self, batch, phase, step, carry):
        loss = (batch["images"].permute(0, 2, 3, 1) - self.mean).square().mean()
        return Losses(loss), carry

    def validate(self, batch):
        return {"error": (batch["images"].permute(0, 2, 3, 1) - self.mean).square().mean().item()}

    def controls(self, task):
        return [Control(name="gain", kind="number", minimum=0, maximum=1, default=1.0, help="of the mean")]

    def output(self, task):
        return OutputSpec(dtype="uint8", shape=self.shape)

    def sampler(self, task):
        return self.sampler_class(self.mean.detach())


class NoTasks(Small):
    tasks = ()


class BareConfig(SmallConfig):
    secret: int = 0


class UndescribedOption(Small):
    Config = BareConfig


class OpenConfig(SmallConfig, extra="ignore"):
    pass


class OpenOptions(Small):
    Config = OpenConfig


class NamelessPhase(Small):
    def phases(self, step):
        return ("all",) if step < 5 else ("all", "d")


class NotANumber(Small):
    def training_step(self, batch, phase, step, carry):
        return Losses(self.mean.sum() * float("nan")), carry


class NoGradient(Small):
    def training_step(self, batch, phase, step, carry):
        return Losses(self.mean.sum() * 0), carry


class SilentValidation(Small):
    def validate(self, batch):
        return {}


class OwnRandomness(Small):
    def training_step(self, batch, phase, step, carry):
        losses, carry = super().training_step(batch, phase, step, carry)
        return Losses(losses.total * (1 + np.random.default_rng().random())), carry


class HiddenState(Small):
    def training_step(self, batch, phase, step, carry):
        self.shift = 0.1 * (step + 1)
        return super().training_step(batch, phase, step, carry)

    def sampler(self, task):
        return self.sampler_class(self.mean.detach() + getattr(self, "shift", 0))


class MixesItems(Small):
    sampler_class = MixingSampler


class WrongOutput(Small):
    def output(self, task):
        return OutputSpec(dtype="uint8", shape=(1, 2, 3))


def case_of(family):
    return FamilyCase(sdk.FamilySpec(name="small", target=f"test_contract:{family}", modalities=("image",)))


def test_good_family_passes_all_but_the_export():
    checks = [check for check in CHECKS["family"] if check is not families.check_every_task_exports]
    assert len(run_checks("Small", checks, case_of("Small"))) == len(CHECKS["family"]) - 1


@pytest.mark.parametrize(
    ("family", "check", "message"),
    [
        ("Sampler", "check_declarations", "is no subclass of aigc_sdk.training.family.Family"),
        ("NoTasks", "check_declarations", r"has the tasks \(\); give a tuple of names"),
        ("UndescribedOption", "check_options_are_described", "found none for secret"),
        ("OpenOptions", "check_options_are_described", "found {'frozen': True, 'extra': 'ignore'}"),
        ("NamelessPhase", "check_every_phase_has_an_optimizer", r"expected optimizers for \('all', 'd'\)"),
        ("NotANumber", "check_training_steps_are_finite", "expected total of phase all to be a finite scalar"),
        ("NoGradient", "check_training_steps_are_finite", "expected a gradient in phase all that is not zero"),
        ("SilentValidation", "check_validation_gives_figures", "expected finite floats by name, found {}"),
        ("OwnRandomness", "check_training_repeats", "expected the same weights from the same seed, found others"),
        ("HiddenState", "check_weights_are_all_of_it", "expected the same content of generate after loading"),
        ("MixesItems", "check_samplers_keep_the_contract", "check_items_do_not_depend_on_others"),
        ("WrongOutput", "check_weights_are_all_of_it", "its card says uint8"),
    ],
)
def test_family_that_is_spoilt_is_caught_by_name(family, check, message):
    with pytest.raises(ContractBroken, match=f"^Spoilt fails {check} .*{message}"):
        run_checks("Spoilt", CHECKS["family"], case_of(family))


def test_family_whose_run_lacks_a_task_is_caught(trained, tmp_path):
    (tmp_path / "run.json").write_bytes((trained.folder / "run.json").read_bytes())
    case = FamilyCase(default_registry().find("family", "vae"), run_folder=tmp_path)
    with pytest.raises(ContractBroken, match=r"expected a file for every task, found \[\]"):
        families.check_every_task_exports(case)


def test_check_family_of_an_unknown_name_raises():
    with pytest.raises(UnknownName, match="Did you mean 'vae'"):
        testing.check_family("vea")


# Plugins.


@pytest.fixture
def plugin_of(tmp_path, monkeypatch):
    """Install a plugin by its code and return what the registry makes of it."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(code):
        (tmp_path / "contract_plugin.py").write_text("import aigc_sdk as sdk\n" + code)
        info = tmp_path / "contract_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: contract-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[aigc_sdk]\ncontract = contract_plugin\n")
        (plugin,) = Registry([EntryPoint("contract", "contract_plugin", "aigc_sdk")]).plugins
        return plugin

    yield install
    sys.modules.pop("contract_plugin", None)


REGISTER = "@sdk.hookimpl\ndef aigc_register_generators(register):\n    "
GOOD = REGISTER + "register(sdk.GeneratorSpec(name='noise', target='test_contract:Noise'))\n"


def test_good_plugin_passes(plugin_of):
    assert len(run_checks("it", CHECKS["plugin"], plugin_of(GOOD))) == len(CHECKS["plugin"])


@pytest.mark.parametrize(
    ("code", "check", "message"),
    [
        ("1 / 0", "check_plugin_is_loaded", "expected the state loaded, found failed: ZeroDivisionError"),
        ("import onnx\n" + GOOD, "check_listing_is_light_and_silent", "expected no heavy imports, found onnx"),
        ("print('hi')\n" + GOOD, "check_listing_is_light_and_silent", r"expected nothing printed, found 'hi\\n'"),
        (GOOD.replace(":Noise", ":Nois"), "check_what_it_offers_is_there", "model noise: 'noise' cannot be loaded"),
    ],
)
def test_plugin_that_is_spoilt_is_caught_by_name(plugin_of, code, check, message):
    with pytest.raises(ContractBroken, match=f"{check} .*{message}"):
        run_checks("it", CHECKS["plugin"], plugin_of(code))


def test_plugin_with_a_name_of_another_is_caught(plugin_of):
    plugin = plugin_of(GOOD)
    plugin.notes.append("model noise: also offered by b")
    with pytest.raises(ContractBroken, match="expected names of its own, found model noise: also offered by b"):
        plugins.check_names_are_its_own(plugin)


def test_check_plugin_of_an_unknown_name_raises():
    with pytest.raises(UnknownName, match=r"no plugin 'aigc-sdl'. Did you mean 'aigc-sdk'"):
        testing.check_plugin("aigc-sdl")
