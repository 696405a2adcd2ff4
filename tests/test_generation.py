"""Generation: the same seed and controls give the same items, however they are asked for, and models are found."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import aigc_sdk as sdk
from aigc_sdk import generation
from aigc_sdk.card import Control, OutputSpec, StatePart
from aigc_sdk.contents import Contents
from aigc_sdk.errors import (
    AigcError,
    DeadlineExceeded,
    DeviceUnavailable,
    GenerationFailed,
    InvalidModel,
    InvalidRequest,
    PluginError,
    StorageError,
    UnknownName,
)
from aigc_sdk.generation import selftest
from aigc_sdk.generator import Generator
from aigc_sdk.registry import Registry
from aigc_sdk.runtime.safety import Verdict
from test_safety import endless_model
from tiny_model import CONTROLS, expected, make_card, make_graph, to_bytes, write_tiny_model

PLUGIN = """
import numpy as np
import aigc_sdk as sdk
from aigc_sdk.generator import Generator
from tiny_model import make_card, make_graph

FILES = {"generate": sdk.ModelFile("tiny.onnx", "0" * 64), "mirror": sdk.ModelFile("mirror.onnx", "0" * 64)}

@sdk.hookimpl
def aigc_register_models(register):
    register(sdk.ModelSpec(name="tiny-ready", package=__name__, files=FILES, summary="squares", license="MIT"))

@sdk.hookimpl
def aigc_register_generators(register):
    register(sdk.GeneratorSpec(name="grey", target=f"{__name__}:Grey", tasks=("generate", "white")))

class Grey(Generator):
    provider = "numpy"

    def __init__(self, task):
        self.card = make_card(make_graph(), name="grey", task=task, controls=(), golden=None)
        self.level = 255 if task == "white" else 128

    def run(self, seeds, controls, *, deadline=None):
        return {"content": np.full((len(seeds), 8, 8, 1), self.level, np.uint8)}
"""


@pytest.fixture
def ready_made(tmp_path, monkeypatch):
    """A plugin with a ready-made model of two tasks and a generator, the only one there is."""
    package = tmp_path / "generation_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(PLUGIN)
    write_tiny_model(package / "tiny.onnx")
    write_tiny_model(package / "mirror.onnx", task="mirror")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([EntryPoint("generation", "generation_plugin", "aigc_sdk")])
    monkeypatch.setattr(generation, "default_registry", lambda: registry)
    yield
    sys.modules.pop("generation_plugin", None)


@pytest.fixture
def run_folder(tmp_path):
    """A run folder with two tasks."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_tiny_model(folder / "model.onnx")
    write_tiny_model(folder / "model.mirror.onnx", task="mirror")
    return folder


def pixels(contents):
    return contents.to_numpy().tobytes()


@pytest.mark.parametrize(
    "controls",
    [{}, {"label": 2}, {"gain": 0.5}, {"shift": 9, "flip": True}, {"seed_b": 2**53 - 1, "label": -1, "gain": 1.7}],
)
def test_generate_makes_what_the_model_computes(tiny, controls):
    contents = tiny.generate(5, seed=2**53 - 1, **controls)
    seeds = [item.seed for item in contents]
    assert isinstance(contents, Contents)
    assert np.array_equal(contents.to_numpy(), expected(seeds, **controls))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 49, 50, 1000])
def test_generate_batch_size_has_no_effect(tiny, batch_size):
    whole = tiny.generate(50, seed=7, gain=np.linspace(0, 2, 50))
    assert pixels(tiny.generate(50, seed=7, gain=np.linspace(0, 2, 50), batch_size=batch_size)) == pixels(whole)


def test_generate_shorter_request_is_a_prefix(tiny):
    assert pixels(tiny.generate(5, seed=7)) == pixels(tiny.generate(50, seed=7)[:5])


def test_generate_seeds_and_seed_agree(tiny):
    assert pixels(tiny.generate(seeds=[9])) == pixels(tiny.generate(seed=9))
    many = tiny.generate(6, seed=9)
    assert pixels(tiny.generate(seeds=[item.seed for item in many])) == pixels(many)


def test_generate_any_item_can_be_made_again_alone(tiny):
    many = tiny.generate(seed=7, label=[0, 1, 2, "cat"], gain=[0.1, 0.5, 1, 2], flip=[True, False, True, False])
    for item in many:
        again = tiny.generate(seed=item.seed, **item.provenance["controls"])[0]
        assert np.array_equal(again.data, item.data)
        assert again.provenance == item.provenance


def test_generate_item_at_a_bound_that_float32_rounds_can_be_made_again(tmp_path):
    gain = Control(name="gain", kind="number", maximum=0.3, minimum=0, default=0.3, help="")
    model = sdk.load(write_tiny_model(tmp_path / "tiny.onnx", controls=(CONTROLS[0], gain, *CONTROLS[2:])))
    item = model.generate(seed=7)[0]
    assert item.provenance["controls"]["gain"] > 0.3
    again = model.generate(seed=item.seed, **item.provenance["controls"])[0]
    assert np.array_equal(again.data, item.data)


def test_generate_without_a_seed_differs_and_tells_its_seed(tiny):
    one, other = tiny.generate(), tiny.generate()
    assert one[0].seed != other[0].seed
    assert pixels(tiny.generate(seed=one[0].seed)) == pixels(one)


def test_generate_in_a_fresh_process_gives_identical_bytes(tiny_path):
    code = """
import hashlib, sys
import aigc_sdk as sdk
contents = sdk.generate(sys.argv[1], 20, seed=11, gain=0.3, label="owl")
print(hashlib.sha256(contents.to_numpy().tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tiny_path)], capture_output=True, text=True, check=True)
    here = sdk.generate(tiny_path, 20, seed=11, gain=0.3, label="owl")
    assert done.stdout.strip() == hashlib.sha256(pixels(here)).hexdigest()


def test_generate_from_threads_gives_the_same(tiny):
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda seed: pixels(tiny.generate(3, seed=seed, batch_size=1)), range(40)))
    assert made == [pixels(tiny.generate(3, seed=seed)) for seed in range(40)]


def test_generate_provenance_is_complete(tiny):
    item = tiny.generate(3, seed=7, label="dog", gain=[0.25, 0.5, 1])[1]
    assert item.provenance == {
        "model": "tiny",
        "version": "1.0",
        "graph_sha256": tiny.card.graph_sha256,
        "task": "generate",
        "seed": item.seed,
        "controls": {"label": 1, "gain": 0.5, "shift": 0, "flip": False, "seed_b": 0},
        "sdk_version": sdk.__version__,
        "provider": tiny.provider,
    }
    assert tiny.provider.startswith("CPUExecutionProvider (onnxruntime ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0; .* from 1 to 4194304"),
        ({"n": 10**12}, "n is 1000000000000; .* from 1 to 4194304"),
        ({"n": True}, "n is True; .* from 1 to 4194304"),
        ({"seed": -1}, "seed is -1 .* from 0 to 9007199254740991"),
        ({"seed": "7"}, "seed is '7' .* from 0 to 9007199254740991"),
        ({"seeds": []}, r"seeds is \[\]; .* from 0 to 9007199254740991"),
        ({"seeds": [1], "n": 1}, "leave out n and seed"),
        ({"label": "frog"}, "no choice for label 'frog'.* There are: cat, dog, owl"),
        ({"lable": 1}, "no control of tiny 'lable'. Did you mean 'label'"),
        ({"gain": float("nan")}, "gain is nan; give a number from 0 to 2"),
        ({"batch_size": 0}, "batch_size is 0; .* at least 1"),
        ({"deadline_s": 0}, "deadline_s is 0; give seconds above 0"),
        ({"device": 3}, "device is 3"),
        ({"device": "gpu"}, "no device 'gpu'.* There are: auto, "),
        ({"device": "cuda:x"}, "no device 'cuda:x'"),
        ({"device": "cuda"}, "device='cuda' needs CUDAExecutionProvider"),
        ({"task": "paint"}, "no task of tiny 'paint'.* There are: generate"),
    ],
)
def test_generate_bad_argument_raises_our_error(tiny_path, arguments, message):
    with pytest.raises(AigcError, match=message):
        sdk.generate(tiny_path, **arguments)


def test_generate_device_that_is_not_there_is_no_silent_cpu_run(tiny_path):
    with pytest.raises(DeviceUnavailable):
        sdk.load(tiny_path, device="cuda:0")


@pytest.mark.parametrize("model", [None, 3, "", b"tiny.onnx", ["tiny.onnx"]])
def test_generate_no_model_raises(model):
    with pytest.raises(InvalidRequest, match=r"model is .*; give a name, the path of an \.onnx file or run folder"):
        sdk.generate(model)


def test_generate_deadline_passes_raises(tiny):
    with pytest.raises(DeadlineExceeded, match="larger deadline_s"):
        tiny.generate(100, batch_size=1, deadline_s=1e-9)
    assert len(tiny.generate(3, deadline_s=float("inf"))) == 3
    assert len(tiny.generate(3, deadline_s=None)) == 3


def test_generate_path_stays_loaded_until_the_file_changes(tiny_path, monkeypatch):
    from aigc_sdk import runtime

    opened = []
    really_open = runtime.open_model
    monkeypatch.setattr(runtime, "open_model", lambda path, **how: opened.append(path) or really_open(path, **how))
    first = sdk.generate(tiny_path, seed=1)
    assert pixels(sdk.generate(str(tiny_path), seed=1)) == pixels(first)
    assert opened == [tiny_path]
    write_tiny_model(tiny_path, version="2.0")
    assert sdk.generate(tiny_path, seed=1)[0].provenance["version"] == "2.0"
    assert len(opened) == 2
    tiny_path.unlink()
    with pytest.raises(StorageError, match="Cannot read"):
        sdk.generate(tiny_path, seed=1)


def test_load_run_folder_takes_its_tasks(run_folder):
    assert sdk.load(run_folder).card.task == "generate"
    assert sdk.load(str(run_folder), task="mirror").card.task == "mirror"
    assert sdk.generate(run_folder, task="mirror")[0].provenance["task"] == "mirror"
    with pytest.raises(UnknownName, match=r"no task .* 'paint'"):
        sdk.load(run_folder, task="paint")


def test_load_run_folder_by_a_bare_name(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parent)
    assert sdk.load("run").card.name == "tiny"


def test_load_folder_without_a_model_raises(tmp_path):
    with pytest.raises(
        InvalidModel, match=r"has no model\.onnx; it is not a run folder, or its training did not finish"
    ):
        sdk.load(tmp_path)


@pytest.mark.parametrize("name", ["missing.onnx", "missing/model.onnx"])
def test_load_missing_path_raises(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"Cannot read .*missing.*No such file"):
        sdk.load(name)


def test_load_a_model_returns_it(tiny):
    assert sdk.load(tiny) is tiny
    assert sdk.load(tiny, task="generate") is tiny
    assert pixels(sdk.generate(tiny, seed=1)) == pixels(tiny.generate(seed=1))
    with pytest.raises(UnknownName, match=r"no task .* 'mirror'.* There are: generate"):
        sdk.load(tiny, task="mirror")


def test_model_is_a_context_manager_that_closes(tiny_path):
    with sdk.load(tiny_path) as model:
        assert len(model.generate(2)) == 2
        assert repr(model).startswith("<Model tiny:generate on CPUExecutionProvider")
    with pytest.raises(GenerationFailed, match="'tiny' is closed; load it again"):
        model.generate()
    model.close()
    assert len(sdk.generate(tiny_path)) == 1


def test_load_ready_made_model_by_name_and_task(ready_made):
    assert sdk.load("tiny-ready").card.task == "generate"
    assert sdk.load("tiny-ready:mirror").card.task == "mirror"
    assert sdk.load("tiny-ready", task="mirror").card.task == "mirror"
    assert sdk.load("unknown:tiny-ready").card.task == "generate"
    assert sdk.load("unknown:tiny-ready:mirror").card.task == "mirror"
    with pytest.raises(UnknownName, match=r"no task of tiny-ready 'miror'. Did you mean 'mirror'\?"):
        sdk.load("tiny-ready:miror")


@pytest.mark.parametrize("task", [0, ["mirror"], b"mirror", np.array([])], ids=repr)
def test_load_task_of_another_type_raises_and_says_so(ready_made, tiny_path, task):
    for model in ("tiny-ready", tiny_path):
        with pytest.raises(InvalidRequest, match=r"task is .*; give the name of a task, or None"):
            sdk.load(model, task=task)


@pytest.mark.parametrize("name", ["tiny-redy", "tiny-redy:mirror"])
def test_load_unknown_name_gets_the_nearest(ready_made, name):
    with pytest.raises(
        UnknownName, match=r"There is no model 'tiny-redy'. Did you mean 'tiny-ready'\? There are: grey,"
    ):
        sdk.load(name)


def test_models_lists_what_can_be_loaded(ready_made):
    grey, tiny = sdk.models()
    assert (grey.name, grey.tasks, grey.license) == ("grey", ("generate", "white"), "")
    assert (tiny.name, tiny.tasks, tiny.summary, tiny.license) == (
        "tiny-ready",
        ("generate", "mirror"),
        "squares",
        "MIT",
    )


def test_generator_of_a_plugin_takes_the_same_path(ready_made):
    grey = sdk.generate("grey", 300, seed=7)
    assert (grey.to_numpy() == 128).all() and len(grey) == 300
    assert grey[0].provenance["provider"] == "numpy"
    assert sdk.generate("grey:white", seed=7)[0].data.max() == 255
    with pytest.raises(UnknownName, match="no task of grey 'black'"):
        sdk.generate("grey", task="black")
    with pytest.raises(InvalidRequest, match="is a generator of a plugin; only model files have golden items"):
        generation.selftest("grey")


def test_selftest_tells_whether_the_golden_items_come_out(tmp_path, tiny_path):
    passed, measured = generation.selftest(tiny_path)
    assert passed and measured.startswith("0.0e+00 of the values differ")
    graph = make_graph()
    card = make_card(graph)
    wrong = replace(card.golden, seeds=(1, 1, 2, 3))
    (tmp_path / "wrong.onnx").write_bytes(to_bytes(graph, make_card(graph, golden=wrong)))
    passed, measured = generation.selftest(tmp_path / "wrong.onnx")
    assert not passed and "of the values differ" in measured


def test_selftest_wrong_task_raises(tiny_path):
    with pytest.raises(UnknownName, match="generate"):
        selftest(tiny_path, task="nonsense")


def test_load_model_already_loaded_with_a_device_raises(tiny):
    with pytest.raises(InvalidRequest, match="loaded already"):
        sdk.generate(tiny, device="cuda")


class Broken(Generator):
    def __init__(self, card, outputs):
        self.card, self.provider, self.outputs = card, "test", outputs

    def run(self, seeds, controls, *, deadline=None):
        return self.outputs()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (dict, "KeyError"),
        (lambda: {"content": np.zeros((1, 8, 8, 1), np.uint8)}, "for 2 items"),
        (lambda: {"content": np.zeros((2, 8, 8, 1), np.float32)}, "returned float32"),
    ],
)
def test_generate_broken_generator_of_a_plugin_raises_ours(tiny, outputs, message):
    with pytest.raises(GenerationFailed, match=message):
        sdk.Model(Broken(tiny.card, outputs)).generate(2)


def test_load_folder_named_like_a_model_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits-vae").mkdir()
    write_tiny_model(tmp_path / "digits-vae" / "model.onnx")
    assert sdk.load("digits-vae").card.name == "digits-vae"
    assert sdk.load("./digits-vae").card.name == "tiny"
    with pytest.raises(StorageError, match="missing"):
        sdk.load("./missing")


@pytest.mark.parametrize("batch_size", [1, 7, 300, 1000, None])
def test_generate_iter_makes_what_generate_makes(tiny, batch_size):
    controls = {"gain": np.linspace(0, 2, 600), "label": "owl"}
    batches = list(tiny.generate_iter(600, seed=7, batch_size=batch_size, **controls))
    assert [len(batch) for batch in batches[:-1]] == [batch_size or 256] * (len(batches) - 1)
    assert sum(batches, Contents([])) == tiny.generate(600, seed=7, **controls)


def test_generate_iter_takes_seeds_and_counts_as_generate_does(tiny_path):
    seeds = list(range(10, 40))
    batches = sdk.generate_iter(tiny_path, seeds=iter(seeds), batch_size=8)
    assert [item.seed for batch in batches for item in batch] == seeds
    assert [len(batch) for batch in sdk.generate_iter(tiny_path, label=[0, 1, 2], batch_size=2)] == [2, 1]
    assert [len(batch) for batch in sdk.generate_iter(tiny_path)] == [1]


def test_generate_iter_more_than_one_request_may_make_starts_at_once(tiny):
    n = 2**32
    with pytest.raises(InvalidRequest, match="n is 4294967296"):
        tiny.generate(n)
    first = next(tiny.generate_iter(n, seed=7))
    assert first == tiny.generate(256, seed=7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 2**32 + 1}, "n is 4294967297; .* from 1 to 4294967296"),
        ({"n": 0}, "n is 0"),
        ({"n": 5, "seeds": [1]}, "leave out n and seed"),
        ({"n": 3, "label": [0, 1, 99]}, r"label\[2\] is 99"),
        ({"n": 10**6, "label": [0, 1]}, "label has 2 values for 1000000 items"),
        ({"n": 3, "lable": 1}, "no control of tiny 'lable'"),
        ({"n": 3, "batch_size": 0}, "batch_size is 0"),
        ({"n": 3, "deadline_s": -1}, "deadline_s is -1"),
    ],
)
def test_generate_iter_bad_argument_raises_before_it_is_iterated(tiny, arguments, message):
    with pytest.raises(AigcError, match=message):
        tiny.generate_iter(**arguments)


def test_generate_iter_deadline_is_that_of_each_batch(tiny):
    batches = tiny.generate_iter(20, batch_size=2, deadline_s=1.0)
    first = [next(batches)]
    time.sleep(1.1)
    assert len([*first, *batches]) == 10
    batches = tiny.generate_iter(20, batch_size=2, deadline_s=1e-9)
    with pytest.raises(DeadlineExceeded):
        next(batches)
    assert list(batches) == []  # it is over, and leaves nothing out in silence


def test_generate_iter_policy_plugins_see_every_batch(tiny, monkeypatch):
    seen = []

    class Policies:
        def hooks(self, name):
            return [lambda **given: seen.append((name, given["request"].n)) or []]

    monkeypatch.setattr(generation, "default_registry", Policies)
    batches = tiny.generate_iter(5, batch_size=3)
    assert seen == []
    next(batches)
    assert seen == [("aigc_before_generate", 3), ("aigc_after_generate", 3)]
    next(batches)
    assert seen[2:] == [("aigc_before_generate", 2), ("aigc_after_generate", 2)]


def test_generate_iter_keeps_no_batch_in_memory(tiny):
    tracemalloc.start()
    try:
        peaks = []
        for n in (5_000, 50_000):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            count = sum(len(batch) for batch in tiny.generate_iter(n, seed=1))
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            assert count == n
    finally:
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 2e6


def test_agenerate_makes_what_generate_makes(tiny_path, tiny):
    async def many():
        return await asyncio.gather(*(sdk.agenerate(tiny_path, 3, seed=seed, label="dog") for seed in range(40)))

    assert asyncio.run(many()) == [tiny.generate(3, seed=seed, label="dog") for seed in range(40)]


def test_agenerate_does_not_hold_up_the_loop(tiny):
    async def count():
        task = asyncio.create_task(sdk.agenerate(tiny, 20_000, batch_size=10))
        turns = 0
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return turns, len(await task)

    turns, n = asyncio.run(count())
    assert turns > 10 and n == 20_000


def test_agenerate_bad_argument_raises_in_the_awaiting_task(tiny):
    with pytest.raises(InvalidRequest, match="n is 0"):
        asyncio.run(sdk.agenerate(tiny, 0))


def test_agenerate_cancelled_ends_soon():
    ran = []

    class Slow(Generator):
        provider, card = "test", make_card(make_graph(), golden=None)

        def run(self, seeds, controls, *, deadline=None):
            ran.append(len(seeds))
            time.sleep(0.05)
            return {"content": np.zeros((len(seeds), 8, 8, 1), np.uint8)}

    async def cancel():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sdk.agenerate(sdk.Model(Slow()), 10_000, batch_size=1), 0.2)

    started = time.monotonic()
    asyncio.run(cancel())  # which waits for its threads
    assert time.monotonic() - started < 5
    assert 1 <= len(ran) < 100


@pytest.fixture
def endless(tmp_path):
    """A model that runs for ever if flip is set, and what says how many of its runs are under way."""
    from test_runtime import Counted

    path = tmp_path / "endless.onnx"
    path.write_bytes(endless_model())
    Verdict(is_safe=True).save(hashlib.sha256(path.read_bytes()).hexdigest())  # it was tried before
    model = sdk.load(path)
    session = model._generator._session
    session._session = counted = Counted(session._session)
    return model, counted


def ended_soon(counted) -> bool:
    """Whether the one run began, and ends without a deadline."""
    for _ in range(500):
        if not counted.now:
            return counted.all == 1
        time.sleep(0.01)
    return False


def test_agenerate_cancelled_ends_the_run_inside_onnxruntime(endless):
    model, counted = endless

    async def cancel():
        task = asyncio.create_task(sdk.agenerate(model, flip=True, deadline_s=None))
        while not counted.now:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert ended_soon(counted)


@pytest.mark.parametrize("how", ["close", "with", "forget"])
def test_generate_iter_closed_from_another_thread_ends_the_run(endless, how):
    model, counted = endless
    parts = model.generate_iter(flip=True, deadline_s=None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, parts)
        while not counted.now:
            time.sleep(0.01)
        if how == "close":
            parts.close()
        elif how == "with":
            with parts:
                pass
        else:  # as when an interpreter lets go of it
            parts.__del__()
        with pytest.raises(GenerationFailed, match="was stopped"):
            waiting.result(20)
    assert ended_soon(counted)
    assert list(parts) == []


def test_generate_iter_abandoned_by_a_cancelled_task_ends_the_run(endless):
    """What wraps the iterator for asyncio closes it, as an async generator does when it is closed or cancelled."""
    model, counted = endless

    async def batches():
        with model.generate_iter(flip=True, deadline_s=None) as parts:
            while True:
                yield await asyncio.to_thread(next, parts)

    async def abandon():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(batches()), 0.3)

    asyncio.run(abandon())
    assert ended_soon(counted)


def test_generate_iter_closed_between_batches_is_over(tiny):
    with tiny.generate_iter(20, batch_size=2) as batches:
        assert len(next(batches)) == 2
    assert list(batches) == []
    batches.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that a process can send itself so")
@pytest.mark.parametrize("call", ["generate", "generate_iter"])
def test_interrupted_run_is_ended_and_the_model_lives_on(endless, call):
    model, counted = endless
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        list(getattr(model, call)(3, flip=True, deadline_s=None))
    assert ended_soon(counted)
    assert len(model.generate(2, deadline_s=20)) == 2


class Streaming(Generator):
    """A generator of a plugin that streams, and fails as it is told."""

    provider = "test"

    def __init__(self, fail):
        text = {"modality": "text", "output": OutputSpec(dtype="int32", shape=(9,), length=True)}
        limit = Control(name="max_length", kind="integer", minimum=1, maximum=9, default=9, help="")
        state = (StatePart(name="last", dtype="float32", shape=(2,)),)
        self.card = replace(make_card(make_graph(), golden=None), task="stream", controls=(limit,), state=state, **text)
        self.fail = fail

    def run(self, seeds, controls, *, deadline=None):
        raise NotImplementedError

    def go_on(self, seeds, controls, state, *, deadline=None):
        made = {"content": np.full((1, 1), 97, np.int32), "length": np.ones(1, np.int64)}
        made |= {"finished": np.array([False]), **{f"{name}.next": value for name, value in state.items()}}
        return made if state["position"][0] < 0 else self.fail(made)


class Panic(BaseException):
    """As Rust raises it."""


def panic(made):
    raise Panic("of another language")


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (lambda made: 1 / 0, "ZeroDivisionError"),
        (lambda made: sys.exit(3), "SystemExit: 3"),
        (panic, "Panic: of another language"),
        (lambda made: None, "TypeError"),
        (lambda made: {}, "KeyError: 'content'"),
        (lambda made: {name: value for name, value in made.items() if name != "finished"}, "KeyError: 'finished'"),
        (lambda made: {**made, "finished": np.zeros(0)}, "IndexError"),
        (lambda made: {name: value for name, value in made.items() if name != "state.last.next"}, "KeyError"),
        (lambda made: {**made, "length": np.array([7])}, "lengths from 7"),
        (lambda made: {**made, "content": np.full((1, 1), -5, np.int32)}, "-5"),
    ],
)
def test_stream_broken_generator_of_a_plugin_raises_ours(fail, message):
    with pytest.raises(GenerationFailed, match=message):
        list(sdk.Model(Streaming(fail)).stream(max_length=3))


def test_stream_of_a_generator_of_a_plugin_gives_its_parts():
    assert list(sdk.Model(Streaming(lambda made: made)).stream(max_length=3)) == ["a", "a", "a"]


@pytest.mark.parametrize("name", ["aigc_before_generate", "aigc_after_generate"])
def test_stream_failing_policy_is_a_plugin_error(tmp_path, monkeypatch, name):
    (tmp_path / "failing_policy.py").write_text(f"""
import aigc_sdk as sdk

@sdk.hookimpl
def {name}():
    1 / 0
""")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing_policy", raising=False)
    registry = Registry([EntryPoint("policy", "failing_policy", "aigc_sdk")])
    names = sdk.load("names:stream")
    monkeypatch.setattr(generation, "default_registry", lambda: registry)
    with pytest.raises(PluginError, match=f"failed in {name}: ZeroDivisionError"):
        list(names.stream())


def test_close_of_a_failing_generator_of_a_plugin_is_a_plugin_error(tiny):
    class Stuck(Broken):
        def close(self):
            sys.exit(1)

    with pytest.raises(PluginError, match="The generator of tiny cannot be closed: SystemExit: 1"):
        sdk.Model(Stuck(tiny.card, dict)).close()


def test_model_shows_its_card_in_a_notebook(tmp_path):
    path = write_tiny_model(tmp_path / "tiny.onnx", intended_use="<script>alert(1)</script> & more")
    shown = sdk.load(path)._repr_html_()
    assert "<tr><th>intended_use</th><td>&lt;script&gt;alert(1)&lt;/script&gt; &amp; more</td></tr>" in shown
    assert "<td>label (choice): what it shows; one of cat, dog, owl" in shown


class Carded(Generator):
    """A generator of a plugin with the card that it is given."""

    def __init__(self, card):
        self.card = card

    def run(self, seeds, controls, *, deadline=None):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": "smell"}, "modality"),
        ({"controls": None}, "controls"),
        ({"controls": (1,)}, "controls"),
        ({"output": None}, "output"),
        ({"name": None}, "name"),
        ({"license": 3}, "license"),
    ],
)
def test_load_generator_of_a_plugin_with_a_wrong_card_is_a_plugin_error(change, message):
    generator = Carded(replace(make_card(make_graph()), **change))
    with pytest.raises(ValueError, match=message):
        generation._check_card(generator)


def test_load_generator_of_a_plugin_with_no_card_is_a_plugin_error():
    generator = Carded({"name": "grey"})
    with pytest.raises(TypeError, match="which is no ModelCard"):
        generation._check_card(generator)


def test_load_of_a_folder_that_may_not_be_entered_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match="may not be entered"):
        sdk.load(tmp_path)


@pytest.mark.parametrize("device", [["cpu"], None, 3])
def test_generate_device_that_is_no_name_is_refused(tiny_path, device):
    with pytest.raises(InvalidRequest, match="give a name such as"):
        sdk.generate(tiny_path, device=device)


@pytest.mark.parametrize("model", ["digits-vae:", "digits-vae"])
def test_generate_empty_task_is_refused(model):
    with pytest.raises(UnknownName, match="There is no task of digits-vae ''"):
        sdk.generate(model, task=None if model.endswith(":") else "")


@pytest.mark.parametrize("name", ["digits-vae:interpolate", "aigc-sdk:digits-vae:interpolate"])
def test_task_named_in_two_ways_has_to_be_one(name):
    made = sdk.generate(name, seed=7, seed_b=8, t=0, task="interpolate")
    assert np.array_equal(made[0].data, sdk.generate(name, seed=7, seed_b=8, t=0)[0].data)
    asks = (
        lambda: sdk.generate(name, task="generate"),
        lambda: sdk.load(name, task="generate"),
        lambda: next(sdk.generate_iter(name, task="reconstruct")),
        lambda: next(sdk.stream(name)),
        lambda: selftest(name, task="generate"),
        lambda: asyncio.run(sdk.agenerate(name, task="generate")),
    )
    for ask in asks:
        with pytest.raises(InvalidRequest, match=r"names the task 'interpolate', and task='.*' another one; give one"):
            ask()
