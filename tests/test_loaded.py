"""What stays loaded: one load for all who ask, the bound in bytes, deadlines, interruptions and forks."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import aigc_sdk as sdk
from aigc_sdk import generation
from aigc_sdk.card import Golden
from aigc_sdk.errors import AigcError, DeadlineExceeded, GenerationFailed, InvalidModel, InvalidRequest, PluginError
from aigc_sdk.loaded import Loaded, bound_bytes
from aigc_sdk.registry import Registry
from aigc_sdk.runtime import session
from aigc_sdk.runtime.safety import Verdict
from test_runtime import interrupted_after, needs_fork, needs_kill
from test_safety import endless_model
from tiny_model import CONTROLS, expected, make_card, to_bytes, write_tiny_model

KB = 1000


@pytest.fixture
def loads(monkeypatch) -> list[int]:
    """How large the files are that onnxruntime loads, one after the other, with nothing kept from before."""
    generation._kept.clear()
    whole, found = session.ort.InferenceSession, []

    def seen(model, *args, **options):
        found.append(len(model))
        return whole(model, *args, **options)

    monkeypatch.setattr(session.ort, "InferenceSession", seen)
    return found


def known(path: Path) -> Path:
    """Let a file be one that was tried before, which takes a process and seconds; this is about what comes after."""
    Verdict(is_safe=True, may_fold=True).save(hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.fixture
def tiny_path(tiny_path) -> Path:
    """A hand-made model file, seen before."""
    return known(tiny_path)


def write_models(folder: Path, n: int) -> list[Path]:
    return [known(write_tiny_model(folder / f"tiny-{i}.onnx", name=f"tiny-{i}")) for i in range(n)]


def endless_golden() -> bytes:
    """A model whose golden items take for ever."""
    from onnx import ModelProto

    graph = ModelProto.FromString(endless_model())
    graph.ClearField("metadata_props")
    seeds = np.arange(4)
    feeds = {control.name: np.full(4, control.default, control.dtype) for control in CONTROLS}
    feeds["flip"] = np.full(4, True)
    return to_bytes(graph, make_card(graph, golden=Golden.of(seeds, feeds, expected(seeds))))


@pytest.fixture
def slow_path(tmp_path) -> Path:
    path = tmp_path / "slow.onnx"
    path.write_bytes(endless_golden())
    return known(path)


def wait_until(is_so, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---------------------------------------------------------------- one load for all


def test_generate_from_cold_threads_loads_once(tiny_path, loads):
    together = threading.Barrier(8)

    def make(seed: int):
        together.wait()
        return sdk.generate(tiny_path, 2, seed=seed)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert len(loads) == 1
    assert [contents[0].seed for contents in made] == list(range(8))


def test_generate_models_in_turn_loads_each_once(tmp_path, loads):
    paths = write_models(tmp_path, 6)
    for _ in range(3):
        for i, path in enumerate(paths):
            assert sdk.generate(path, seed=1)[0].provenance["model"] == f"tiny-{i}"
    assert len(loads) == 6


@pytest.mark.parametrize("other", [{"device": "cpu"}, {"device": "auto"}, {"task": "generate"}])
def test_generate_same_model_asked_for_otherwise_is_loaded_once(tiny_path, loads, other):
    sdk.generate(tiny_path)
    sdk.generate(tiny_path, **other)
    sdk.generate(str(tiny_path))
    assert len(loads) == 1


def test_generate_of_a_changed_file_loads_it_anew(tiny_path, loads):
    sdk.generate(tiny_path)
    known(write_tiny_model(tiny_path, version="2.0"))
    assert sdk.generate(tiny_path)[0].provenance["version"] == "2.0"
    assert len(loads) == 2


def test_generate_with_a_wrong_task_of_what_is_kept_is_refused(tiny_path):
    sdk.generate(tiny_path)
    with pytest.raises(AigcError, match="There is no task of tiny 'mirror'"):
        sdk.generate(tiny_path, task="mirror")


def test_load_is_always_a_model_of_its_own(tiny_path, loads):
    sdk.generate(tiny_path)
    with sdk.load(tiny_path) as first, sdk.load(tiny_path):
        pass
    with pytest.raises(GenerationFailed, match="closed"):
        first.generate()
    assert len(sdk.generate(tiny_path)) == 1
    assert len(loads) == 3


def test_load_that_fails_is_reported_to_all_and_tried_again(tiny_path, loads, monkeypatch):
    good = tiny_path.read_bytes()
    tiny_path.write_bytes(b"\x08" * 1000)
    asked, go_on, whole = [], threading.Event(), generation._open_generator

    def wait(*arguments):
        asked.append(arguments)
        go_on.wait(20)
        return whole(*arguments)

    monkeypatch.setattr(generation, "_open_generator", wait)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(sdk.generate, tiny_path) for _ in range(4)]
        wait_until(lambda: [len(one._waiting) for one in generation._kept._loads.values()] == [4])
        go_on.set()
        assert {type(answer.exception()) for answer in answers} == {InvalidModel}
    assert len(asked) == 1
    tiny_path.write_bytes(good)
    assert len(sdk.generate(tiny_path, 2)) == 2


def test_generator_of_a_plugin_that_asks_for_itself_is_a_plugin_error(tmp_path, monkeypatch):
    (tmp_path / "asks_for_itself.py").write_text("""
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_generators(register):
    register(sdk.GeneratorSpec(name="mirror-of-itself", target=f"{__name__}:make"))

def make(task):
    sdk.generate("mirror-of-itself")
""")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry([EntryPoint("asks", "asks_for_itself", "aigc_sdk")])
    monkeypatch.setattr(generation, "default_registry", lambda: registry)
    with pytest.raises(PluginError, match="'mirror-of-itself' asks for itself while it is being loaded"):
        sdk.generate("mirror-of-itself", deadline_s=20)


# ---------------------------------------------------------------- the bound


def keep(kept: Loaded, *sizes: int) -> None:
    """Ask for values that are their own keys and as large as they say."""
    for size in sizes:
        assert kept.get(size, lambda size=size: (size, size * KB), name="it") == size


def kept_keys(kept: Loaded) -> list:
    return list(kept._kept)


@pytest.fixture
def bound(monkeypatch):
    def set_bound(megabytes: object) -> None:
        monkeypatch.setenv("AIGC_SDK_LOADED_MB", str(megabytes))

    return set_bound


def test_loaded_least_recently_used_goes_first(bound):
    bound(1)
    kept = Loaded()
    keep(kept, 400, 300, 200)
    keep(kept, 400)  # used again
    keep(kept, 250)
    assert kept_keys(kept) == [200, 400, 250]
    keep(kept, 950)
    assert kept_keys(kept) == [950]


def test_loaded_larger_than_the_bound_works_and_stays_until_another(bound):
    bound(1)
    kept = Loaded()
    keep(kept, 100, 5000)
    assert kept_keys(kept) == [5000]
    keep(kept, 5000)
    keep(kept, 100)
    assert kept_keys(kept) == [100]


def test_loaded_bound_of_0_keeps_nothing(bound):
    bound(0)
    kept = Loaded()
    keep(kept, 1, 1, 2)
    assert kept_keys(kept) == []


def test_generate_with_a_bound_lets_go_of_models(tmp_path, loads, bound):
    paths = write_models(tmp_path, 3)
    bound(0)
    for _ in range(2):
        assert len(sdk.generate(paths[0], 2)) == 2
    assert len(loads) == 2
    bound(512)
    for _ in range(2):
        for path in paths:
            sdk.generate(path)
    assert len(loads) == 5


def test_loaded_by_default_are_512_megabytes(monkeypatch):
    monkeypatch.delenv("AIGC_SDK_LOADED_MB", raising=False)
    assert bound_bytes() == 512 * 10**6


@pytest.mark.parametrize("value", ["", "lots", "-1", "1.5", "nan", "1e3", "\u0665", "9" * 13, "512MB"])
def test_generate_with_a_bad_bound_is_an_error(tiny_path, loads, bound, value):
    bound(value)
    with pytest.raises(InvalidRequest, match=r"AIGC_SDK_LOADED_MB is '.*'; give a whole number of megabytes"):
        sdk.generate(tiny_path)
    assert not loads


def test_size_of_a_model_follows_its_file_and_its_weights(tmp_path):
    sizes = {}
    for weights in ("float32", "int8"):
        path = known(write_tiny_model(tmp_path / f"{weights}.onnx", config={"weights": weights}))
        sizes[weights] = sdk.load(path)._generator.size_bytes / path.stat().st_size
    assert sizes == {"float32": 5, "int8": 14}


# ---------------------------------------------------------------- deadlines and interruptions


def test_generate_deadline_covers_loading(slow_path, tiny_path):
    start = time.monotonic()
    for call in (sdk.generate, sdk.generate_iter):
        with pytest.raises(DeadlineExceeded, match="was not loaded before the deadline"):
            call(slow_path, deadline_s=0.3)
    assert time.monotonic() - start < 20
    assert len(sdk.generate(tiny_path, deadline_s=20)) == 1


def test_generate_deadline_is_one_for_loading_and_running(tmp_path, monkeypatch):
    path = tmp_path / "endless.onnx"
    path.write_bytes(endless_model())
    known(path)
    whole = generation._open_generator
    monkeypatch.setattr(generation, "_open_generator", lambda *a: time.sleep(1.0) or whole(*a))
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="did not finish before the deadline"):
        sdk.generate(path, flip=True, deadline_s=1.5)
    assert time.monotonic() - start < 2.4


def test_generate_of_the_last_who_waits_ends_the_load(slow_path):
    """The golden items of this model take for ever: they end when nobody waits for them."""
    with pytest.raises(DeadlineExceeded):
        sdk.generate(slow_path, deadline_s=0.3)
    wait_until(lambda: not generation._kept._loads)
    used = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - used < 0.3


@needs_kill
def test_generate_interrupted_while_loading_strands_nobody(tiny_path, loads, monkeypatch):
    whole, go_on = generation._open_generator, threading.Event()

    def wait(*arguments):
        go_on.wait(20)
        return whole(*arguments)

    monkeypatch.setattr(generation, "_open_generator", wait)
    with ThreadPoolExecutor(3) as pool:
        # The main thread is the first to ask, and is interrupted when others wait as well.
        others = []
        threading.Timer(0.2, lambda: others.extend(pool.submit(sdk.generate, tiny_path) for _ in range(3))).start()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            sdk.generate(tiny_path)
        go_on.set()
        assert [len(other.result(20)) for other in others] == [1, 1, 1]
    assert len(loads) == 1


def test_loaded_interrupted_at_any_line_strands_nobody():
    kept = Loaded()
    lines = 0
    while interrupted_after(lines, lambda: kept.get("key", lambda: ("value", 1), name="it", deadline=None)):
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(kept.get, "key", lambda: ("value", 1), name="it") for _ in range(2)]
            assert [each.result(10) for each in asked] == ["value", "value"]
        kept.clear()
        lines += 1
    assert lines > 25


def test_loaded_without_a_thread_to_be_had_fails_and_loads_later():
    kept = Loaded()
    usual = threading.stack_size(2**46)
    try:
        with pytest.raises(GenerationFailed, match="it cannot be loaded, for want of a thread"):
            kept.get("key", lambda: ("value", 1), name="it")
    finally:
        threading.stack_size(usual)
    assert kept.get("key", lambda: ("value", 1), name="it", deadline=time.monotonic() + 10) == "value"


def test_agenerate_cancelled_while_loading_ends_soon(slow_path):
    async def cancel() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sdk.agenerate(slow_path), 0.3)

    start = time.monotonic()
    asyncio.run(cancel())  # which waits for its threads
    assert time.monotonic() - start < 20
    wait_until(lambda: not generation._kept._loads)


# ---------------------------------------------------------------- forks

FORK = """
import faulthandler, os, sys, threading, time
import aigc_sdk as sdk

def work():
    {call}

threading.Thread(target=work).start()
time.sleep(float(sys.argv[1]))
child = os.fork()
if not child:
    faulthandler.dump_traceback_later(30, exit=True)  # what deadlocks says where
    work()
    os._exit(0)
_, status = os.waitpid(child, 0)
os.write(1, b"%d" % os.waitstatus_to_exitcode(status))  # sys.stdout is not ours while plugins load
"""


def fork_after(seconds: float, call: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK.format(call=call), str(seconds)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return done.stdout.strip()


@needs_fork
def test_fork_while_plugins_load_does_no_harm(tmp_path):
    """A plugin that takes long to import, as one that imports torch does; real distribution, real fork."""
    (tmp_path / "slow_plugin.py").write_text("""
import time
time.sleep(1)
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_generators(register):
    register(sdk.GeneratorSpec(name="slow", target="slow_plugin:make"))
""")
    info = tmp_path / "slow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aigc_sdk]\nslow = slow_plugin\n")
    call = "assert [p.state for p in sdk.plugins() if p.name == 'slow'] == ['loaded']"
    assert fork_after(0.6, call, tmp_path) == "0"


@needs_fork
@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.4])
def test_fork_while_a_model_loads_does_no_harm(tmp_path, tiny_path, seconds):
    call = f"assert len(sdk.generate({str(tiny_path)!r}, 2)) == 2"
    assert fork_after(seconds, call, tmp_path) == "0"
