"""Running model files: what the cache remembers, golden items, devices, threads, deadlines and processes."""

import gc
import hashlib
import json
import logging
import multiprocessing
import os
import platform
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

import aigc_sdk as sdk
from aigc_sdk.card import Golden
from aigc_sdk.errors import (
    DeadlineExceeded,
    DeviceUnavailable,
    GenerationFailed,
    InvalidModel,
    InvalidRequest,
    UnknownName,
)
from aigc_sdk.generation import selftest
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.runtime.devices import PROVIDERS, check_provider, choose_providers
from aigc_sdk.runtime.places import Places
from aigc_sdk.runtime.safety import Verdict
from test_safety import endless_model
from tiny_model import CONTROLS, expected, make_card, make_graph, to_bytes, write_tiny_model

CPU = "CPUExecutionProvider"
PLACES = (os.cpu_count() or 1) + 1


def cache() -> Path:
    return Path(os.environ["AIGC_SDK_CACHE"])


def verdict_path(model: Path) -> Path:
    (path,) = (cache() / "verdicts").glob(f"{hashlib.sha256(model.read_bytes()).hexdigest()}*.json")
    return path


def feeds(n: int) -> dict[str, np.ndarray]:
    """Return the inputs of the hand-made model for n items: seeds 0 .. n - 1, and the defaults."""
    return {"seed": np.arange(n), **{control.name: np.full(n, control.default, control.dtype) for control in CONTROLS}}


def other_golden() -> Golden:
    """Golden items as another machine might have made them: one of 256 values differs."""
    controls = feeds(4)
    seeds = controls.pop("seed")
    content = expected(seeds)
    content[0, 0, 0, 0] += 1
    return Golden.of(seeds, controls, content)


# ---------------------------------------------------------------- what the cache remembers


def test_load_of_a_new_file_imports_no_onnx_in_this_process(tmp_path):
    tiny_path = write_tiny_model(tmp_path / "new.onnx", name="new")
    program = f"import sys, aigc_sdk as sdk; sdk.load({str(tiny_path)!r}); print('onnx' in sys.modules)"
    answers = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert answers == ["False", "False"]


def test_load_of_changed_bytes_is_checked_again(tiny_path):
    sdk.load(tiny_path)
    data = tiny_path.read_bytes()
    tiny_path.write_bytes(data.replace(b"Reshape", b"Reshepe", 1))
    with pytest.raises(InvalidModel, match="graph_sha256 differs"):
        sdk.load(tiny_path)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"is_safe": "perhaps"}',
        b'{"is_safe": true, "golden": 7}',
        b'{"golden": {"x": NaN}}',
        b"[" * 100_000,
    ],
)
def test_load_damaged_verdict_is_ignored_and_replaced(tiny_path, damaged):
    sdk.load(tiny_path)
    path = verdict_path(tiny_path)
    good = path.read_bytes()
    path.write_bytes(damaged)
    assert not Verdict.load(hashlib.sha256(tiny_path.read_bytes()).hexdigest()).is_safe
    sdk.load(tiny_path)
    assert path.read_bytes() == good


def test_load_verdict_that_is_a_folder_is_no_error(tiny_path):
    sdk.load(tiny_path)
    path = verdict_path(tiny_path)
    path.unlink()
    path.mkdir()
    assert len(sdk.load(tiny_path).generate(2)) == 2


def test_load_cache_that_cannot_be_written_is_no_error(tiny_path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AIGC_SDK_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        assert len(sdk.load(tiny_path).generate(2)) == 2


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become a user without a home"
)
def test_load_by_a_user_without_a_home_is_no_error():
    program = """
import os, sys
import aigc_sdk as sdk
from aigc_sdk.runtime.trial import look
from pathlib import Path
# Imports all that it needs, from where the other user may not read, nor start a process.
look(Path(sys.argv[1]).read_bytes(), "tiny.onnx")
sdk.generate(sys.argv[1])
os.setuid(54321)
for name in ("HOME", "XDG_CACHE_HOME", "AIGC_SDK_CACHE"):
    os.environ.pop(name, None)
try:
    Path.home()
except RuntimeError:
    print(len(sdk.load(sys.argv[1]).generate(2)))
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = write_tiny_model(Path(folder) / "tiny.onnx")
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


def test_load_of_bytes_trusted_before_is_checked_once_and_recorded(tmp_path):
    tiny_path = write_tiny_model(tmp_path / "new.onnx", name="new")
    sha256 = hashlib.sha256(tiny_path.read_bytes()).hexdigest()
    OnnxGenerator.open(tiny_path, trusted_sha256=sha256)
    assert not Verdict.load(sha256).is_safe
    OnnxGenerator.open(tiny_path)
    assert Verdict.load(sha256).is_safe


def test_open_trusted_bytes_are_not_checked_and_others_are(tmp_path):
    graph = make_graph()
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, np.nan], np.float32), "unused"))
    path = tmp_path / "trusted.onnx"
    path.write_bytes(to_bytes(graph, make_card(graph)))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert OnnxGenerator.open(path, trusted_sha256=sha256).card.name == "tiny"
    for trusted in (None, "0" * 64):  # having been trusted once does not make it good
        with pytest.raises(InvalidModel, match="holds NaN"):
            OnnxGenerator.open(path, trusted_sha256=trusted)


# ---------------------------------------------------------------- the card beside the file


@pytest.mark.parametrize("of", ["another export", "scores alone", "nothing", "broken bytes", "a folder"])
def test_load_beside_another_card_warns_each_time_and_uses_the_one_inside(tiny_path, caplog, of):
    card, beside = sdk.load(tiny_path).card, tiny_path.with_suffix(".card.json")
    other = {
        "another export": replace(card, version="7").to_json().encode(),
        "scores alone": replace(card, scores=({"metric": "fid"},)).to_json().encode(),
        "nothing": b"",
        "broken bytes": b"\xff" + b"[" * 10**5,
    }.get(of)
    beside.mkdir() if other is None else beside.write_bytes(other)
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "aigc_sdk"):
            assert sdk.load(tiny_path).card == card
        (record,) = caplog.records
        assert f"{beside} is not the card that is inside of {tiny_path.name}" in record.getMessage()
        caplog.clear()


def test_load_beside_the_same_card_or_none_warns_of_nothing(tiny_path, caplog):
    card, beside = sdk.load(tiny_path).card, tiny_path.with_suffix(".card.json")
    for same in (card.to_json(), json.dumps(json.loads(card.to_json()), indent=2).replace("\n", "\r\n")):
        beside.write_bytes(same.encode())
        sdk.load(tiny_path)
    assert not caplog.records


# ---------------------------------------------------------------- golden items


def test_load_golden_miss_warns_once_and_is_recorded(tmp_path, caplog):
    path = write_tiny_model(tmp_path / "elsewhere.onnx", golden=other_golden())
    with caplog.at_level(logging.WARNING, "aigc_sdk"):
        np.testing.assert_array_equal(sdk.load(path).generate(seeds=[3]).to_numpy(), expected([3]))
        (record,) = caplog.records
        assert record.name == "aigc_sdk"
        assert "elsewhere.onnx makes other content here" in record.getMessage()
        assert "3.9e-03 of the values differ, by at most 1" in record.getMessage()
        caplog.clear()
        sdk.load(path)
        assert not caplog.records
    (measured,) = Verdict.load(hashlib.sha256(path.read_bytes()).hexdigest()).golden.values()
    assert "differ, by at most 1" in measured


def test_load_golden_hit_is_recorded_without_a_warning(tiny_path, caplog):
    model = sdk.load(tiny_path)
    assert not caplog.records
    golden = Verdict.load(hashlib.sha256(tiny_path.read_bytes()).hexdigest()).golden
    assert golden == {f"{model.provider} on {platform.machine()}": "0.0e+00 of the values differ, by at most 0"}


def test_selftest_says_whether_golden_items_pass(tmp_path, tiny_path):
    assert selftest(tiny_path) == (True, "0.0e+00 of the values differ, by at most 0")
    path = write_tiny_model(tmp_path / "elsewhere.onnx", golden=other_golden())
    assert selftest(path) == (False, "3.9e-03 of the values differ, by at most 1")


def test_check_golden_of_a_card_without_any_is_refused():
    graph = make_graph()
    generator = OnnxGenerator.from_bytes(to_bytes(graph, make_card(graph, golden=None)))
    with pytest.raises(InvalidModel, match="no golden items"):
        generator.check_golden()


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_choose_providers_cpu_is_the_cpu_alone(device):
    assert choose_providers(device, ["CUDAExecutionProvider", CPU]) == [(CPU, {})]


@pytest.mark.parametrize("device", sorted(set(PROVIDERS) - {"cpu", "cuda"}))
def test_choose_providers_accelerator_comes_before_the_cpu(device):
    assert choose_providers(device, [PROVIDERS[device], CPU]) == [(PROVIDERS[device], {}), (CPU, {})]


@pytest.mark.parametrize("device", sorted(set(PROVIDERS) - {"cpu"}))
def test_choose_providers_accelerator_not_built_in_is_device_unavailable(device):
    with pytest.raises(DeviceUnavailable, match=rf"device='{device}' needs {PROVIDERS[device]}.*has only {CPU}"):
        choose_providers(device, [CPU])


def test_choose_providers_numbered_device_gets_its_number():
    available = ["DmlExecutionProvider", CPU]
    assert choose_providers("directml:1", available)[0] == ("DmlExecutionProvider", {"device_id": "1"})


@pytest.mark.parametrize(
    "device",
    [
        "cuda:x",
        "cuda:",
        "cuda:-1",
        "cuda:1.5",
        "cuda:1:2",
        "cuda:\u0661",
        "cuda:9999",
        "cpu:0",
        "coreml:1",
        "",
        "CUDA",
        ":1",
    ],
)
def test_choose_providers_malformed_device_is_unknown(device):
    with pytest.raises(UnknownName, match="There is no device"):
        choose_providers(device, [*PROVIDERS.values()])


def test_choose_providers_misspelt_device_names_the_nearest():
    with pytest.raises(UnknownName, match=r"no device 'cude'\. Did you mean 'cuda'\? There are: auto, coreml, cpu"):
        choose_providers("cude", [CPU])


@pytest.mark.parametrize("device", [None, 0, True, b"cpu"])
def test_choose_providers_no_text_is_invalid_request(device):
    with pytest.raises(InvalidRequest, match="give a name such as"):
        choose_providers(device, [CPU])


def test_check_provider_that_did_not_start_is_device_unavailable():
    check_provider("cuda", "CUDAExecutionProvider", ["CUDAExecutionProvider", CPU])
    with pytest.raises(DeviceUnavailable, match=f"is built in but did not start.*has only {CPU}"):
        check_provider("cuda", "CUDAExecutionProvider", [CPU])


def test_load_on_a_device_that_is_not_here_names_what_there_is(tiny_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a GPU build here")
    with pytest.raises(DeviceUnavailable, match=r"CUDAExecutionProvider.*has only .*CPUExecutionProvider"):
        sdk.load(tiny_path, device="cuda")


def test_load_says_what_runs_it(tiny):
    assert tiny.provider.startswith("CPUExecutionProvider (onnxruntime ")


# ---------------------------------------------------------------- threads


class Counted:
    """Passes runs on to onnxruntime and counts how many are under way at once."""

    def __init__(self, session) -> None:
        self.session, self.lock, self.now, self.most, self.all = session, threading.Lock(), 0, 0, 0

    def run(self, *arguments):
        with self.lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)
        try:
            return self.session.run(*arguments)
        finally:
            with self.lock:
                self.now -= 1


def open_files() -> int | None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    return process.num_fds() if hasattr(process, "num_fds") else process.num_handles()


@pytest.mark.slow
def test_generate_from_64_threads_is_right_and_bounded(tiny):
    threads, calls, n = 64, 50, 4
    tiny.generate(n)
    session = tiny._generator._session
    session._session = counted = Counted(session._session)
    before = open_files()
    together = threading.Barrier(threads)

    def wrong_items(thread: int) -> int:
        together.wait()
        wrong = 0
        for call in range(calls):
            seeds = [thread * 1_000_000 + call * 1000 + i for i in range(n)]
            label, flip = thread % 3, bool(call % 2)
            made = tiny.generate(seeds=seeds, label=label, flip=flip).to_numpy()
            wrong += int((made != expected(seeds, label=label, flip=flip)).any(axis=(1, 2, 3)).sum())
        return wrong

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(wrong_items, range(threads))) == 0
    assert counted.all == threads * calls
    assert 1 < counted.most <= PLACES
    assert open_files() == before


def run_until_the_deadline(model: sdk.Model, deadline_s: float) -> None:
    with pytest.raises(DeadlineExceeded):
        model.generate(1, flip=True, deadline_s=deadline_s)


def test_generate_waiting_for_a_place_ends_at_the_deadline(endless):
    with ThreadPoolExecutor(PLACES) as pool:
        for _ in range(PLACES):
            pool.submit(run_until_the_deadline, endless, 3)
        time.sleep(0.3)
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            endless.generate(2, deadline_s=0.2)
        assert 0.15 < time.monotonic() - start < 2.5
    assert len(endless.generate(2, deadline_s=5)) == 2


def count_places(model: sdk.Model) -> int:
    """Return how many runs of an endless model are under way at once, when more are asked for."""
    session = model._generator._session
    before, session._session = session._session, Counted(session._session)
    try:
        with ThreadPoolExecutor(PLACES + 2) as pool:
            for _ in range(PLACES + 2):
                pool.submit(run_until_the_deadline, model, 0.5)
        return session._session.most
    finally:
        session._session = before


def test_run_places_are_cores_and_one_more(endless):
    assert count_places(endless) == PLACES


def test_run_without_a_thread_to_be_had_fails_and_keeps_its_places(endless):
    """A stack that no memory holds: starting a thread really fails."""
    session = endless._generator._session
    session._places = Places(PLACES)  # as of a model that was not run yet
    usual = threading.stack_size(2**46)
    try:
        for _ in range(2 * PLACES):
            with pytest.raises(GenerationFailed, match=r"endless\.onnx cannot run, for want of a thread"):
                endless.generate(1, deadline_s=5)
    finally:
        threading.stack_size(usual)
    assert len(endless.generate(2, deadline_s=5)) == 2
    assert count_places(endless) == PLACES


def test_run_with_fewer_threads_than_places_to_be_had_waits_for_one(endless):
    endless.generate(1)  # starts one
    usual = threading.stack_size(2**46)
    try:
        assert len(endless.generate(2, deadline_s=5)) == 2
    finally:
        threading.stack_size(usual)


def interrupted_after(lines: int, call) -> bool:
    """Make the call with a KeyboardInterrupt at the line of ours after so many; return whether there was one."""
    left = lines

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    usual = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
        return False
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(usual)


OURS = str(Path(sdk.__file__).parent)


def test_run_interrupted_at_any_line_keeps_its_places(endless):
    endless.generate(1)
    lines = 0
    while interrupted_after(lines, lambda: endless._generator._session.run(feeds(1), deadline=time.monotonic() + 5)):
        lines += 1
    assert lines > 20
    assert len(endless.generate(2, deadline_s=5)) == 2
    assert count_places(endless) == PLACES


needs_kill = pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that a process can send itself so")


@needs_kill
def test_generate_interrupted_ends_the_run(endless):
    session = endless._generator._session
    session._session = counted = Counted(session._session)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endless.generate(1, flip=True, deadline_s=30)
    assert time.monotonic() - start < 10
    assert (counted.all, counted.now) == (1, 0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_run_interrupted_by_signals_at_any_time_keeps_its_places(tmp_path):
    """In a process whose coverage is not measured: what measures it has a lock that a signal would leave held."""
    (tmp_path / "endless.onnx").write_bytes(endless_model())
    program = "import sys, test_runtime; print(test_runtime.places_after_signals(sys.argv[1]))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "endless.onnx")],
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split() == [str(PLACES)], done.stderr


def places_after_signals(path: str) -> int:
    """Return how many places a session has after calls that Ctrl-C ended at any time."""
    model, interrupted, random = sdk.load(path), 0, np.random.default_rng(0)
    model.generate(1)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    while interrupted < 200:
        try:
            while True:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 5e-4))
                model.generate(1, deadline_s=5)
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
    return count_places(model)


def test_run_after_its_deadline_is_not_started(tiny):
    session = tiny._generator._session
    session._session = counted = Counted(session._session)
    with pytest.raises(DeadlineExceeded, match="did not finish before the deadline"):
        session.run({}, deadline=time.monotonic())
    assert counted.all == 0


def test_generate_failed_runs_give_their_places_back(tiny):
    session = tiny._generator._session
    for _ in range(3 * PLACES):
        with pytest.raises(GenerationFailed, match=r"tiny\.onnx failed while running"):
            session.run({"seed": np.zeros(2, np.int64)}, deadline=time.monotonic() + 1)
    assert len(tiny.generate(2, deadline_s=5)) == 2


# ---------------------------------------------------------------- deadlines


@pytest.fixture
def endless(tmp_path) -> sdk.Model:
    path = tmp_path / "endless.onnx"
    path.write_bytes(endless_model())
    return sdk.load(path)


def test_generate_after_the_deadline_the_model_lives_on(tiny, endless):
    with ThreadPoolExecutor(8) as pool:
        assert all(len(made) == 2 for made in pool.map(lambda _: tiny.generate(2, deadline_s=5), range(40)))
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            endless.generate(1, flip=True, deadline_s=0.1)
    assert len(endless.generate(2)) == 2


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_threads_of_a_model_end_with_it(tiny_path):
    sdk.load(tiny_path).generate(1)
    gc.collect()
    time.sleep(0.5)
    before = threads()
    for _ in range(5):
        with sdk.load(tiny_path) as model, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _, model=model: model.generate(1), range(8)))
    del model
    gc.collect()
    for _ in range(100):
        if threads() <= before:
            break
        time.sleep(0.05)
    assert threads() <= before


def test_generate_each_run_ends_at_its_own_deadline(endless):
    def seconds(deadline_s: float) -> float:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            endless.generate(1, flip=True, deadline_s=deadline_s)
        return time.monotonic() - start

    deadlines = [1.2, 0.3, 0.7][:PLACES]
    with ThreadPoolExecutor(len(deadlines)) as pool:
        taken = list(pool.map(seconds, deadlines))
    for wanted, found in zip(deadlines, taken, strict=True):
        assert wanted - 0.05 < found < wanted + 2


@pytest.mark.parametrize("deadline_s", [1e6, 1e10, 1e300, float("inf"), None])
def test_generate_far_deadline_does_no_harm(tiny, endless, deadline_s):
    assert len(tiny.generate(2, deadline_s=deadline_s)) == 2
    with pytest.raises(DeadlineExceeded):
        endless.generate(1, flip=True, deadline_s=0.1)


def test_run_deadline_beyond_what_threads_can_wait_does_no_harm(endless):
    session = endless._generator._session
    with ThreadPoolExecutor(PLACES) as pool:
        for _ in range(PLACES):
            pool.submit(run_until_the_deadline, endless, 0.6)
        time.sleep(0.2)  # now they have every place
        for deadline in (1e300, float("inf")):
            assert len(session.run(feeds(2), deadline=deadline)["content"]) == 2


# ---------------------------------------------------------------- closing, and other processes


def test_model_closed_is_generation_failed(tiny_path):
    with sdk.load(tiny_path) as model:
        assert len(model.generate(2)) == 2
    with pytest.raises(GenerationFailed, match="'tiny' is closed; load it again"):
        model.generate(2)
    model.close()


def test_model_closed_by_another_thread_is_generation_failed_or_done(tiny_path):
    for _ in range(5):
        model = sdk.load(tiny_path)

        def use(model: sdk.Model = model) -> None:
            for _ in range(50):
                model.generate(2)

        with ThreadPoolExecutor(4) as pool:
            used = [pool.submit(use) for _ in range(4)]
            model.close()
        assert all(isinstance(each.exception(), GenerationFailed | None) for each in used)


def generate_and_report(model: "sdk.Model | str", results) -> None:
    """Run in a child process: with the model of the parent, or one loaded here."""
    loaded = sdk.load(model)
    right = (loaded.generate(seeds=[5, 6]).to_numpy() == expected([5, 6])).all()
    try:
        loaded.generate(1, flip=True, deadline_s=0.2)
        right = False
    except DeadlineExceeded:
        right &= len(loaded.generate(2)) == 2
    loaded.close()
    results.put(bool(right))


def run_in_child(method: str, model: "sdk.Model | str", timeout_s: float = 60) -> bool:
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=generate_and_report, args=(model, results))
    child.start()
    child.join(timeout_s)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode == 0
    return results.get()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# Newer Pythons warn of forking with threads, which is what these tests are about.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_generate_in_a_spawned_process_is_the_same(tmp_path):
    path = tmp_path / "endless.onnx"
    path.write_bytes(endless_model())
    assert run_in_child("spawn", str(path))


@needs_fork
@forks
def test_generate_in_a_forked_process_with_the_model_of_the_parent_is_the_same(endless):
    endless.generate(2)
    time.sleep(0.5)  # by now onnxruntime's threads sleep, and to free the session in the child would wait for them
    assert run_in_child("fork", endless, timeout_s=20)
    np.testing.assert_array_equal(endless.generate(seeds=[5]).to_numpy(), expected([5]))


@needs_fork
@forks
def test_generate_in_a_process_forked_amid_runs_is_the_same(endless):
    """Other threads run and have every place; none of them exists in the child."""
    forked = threading.Event()

    def busy() -> None:
        while not forked.is_set():
            with pytest.raises(DeadlineExceeded):
                endless.generate(1, flip=True, deadline_s=2)

    with ThreadPoolExecutor(PLACES) as pool:
        runs = [pool.submit(busy) for _ in range(PLACES)]
        time.sleep(0.3)
        try:
            assert run_in_child("fork", endless, timeout_s=20)
        finally:
            forked.set()
        for run in runs:
            run.result()
    np.testing.assert_array_equal(endless.generate(seeds=[5]).to_numpy(), expected([5]))


def test_failing_model_prints_nothing(tmp_path, capfd):
    graph = make_graph()
    graph.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(InvalidModel):
        OnnxGenerator.from_bytes(to_bytes(graph, make_card(graph)))
    session = OnnxGenerator.from_bytes(to_bytes(make_graph(), make_card(make_graph())))._session
    with pytest.raises(GenerationFailed):
        session.run({**feeds(2), "gain": np.ones(3, np.float32)})
    assert capfd.readouterr() == ("", "")
