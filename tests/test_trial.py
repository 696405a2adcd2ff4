"""The trial of a file that was not seen before: who is tried, what ends a trial, and what happens where none can be."""

import os
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from onnx import numpy_helper

import aigc_sdk as sdk
from aigc_sdk.errors import DeadlineExceeded, GenerationFailed, InvalidModel, InvalidRequest
from aigc_sdk.runtime import trial
from aigc_sdk.runtime.safety import Verdict, trust
from aigc_sdk.runtime.trial import Limits, look, try_out
from aigc_sdk.stopping import Stop
from hostile_models import HOSTILE, LOOP, allocation, loop, with_work
from tiny_model import make_card, make_graph, to_bytes, write_tiny_model

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of memory")
posix = pytest.mark.skipif(os.name == "nt", reason="needs limits of processor time")


@pytest.fixture
def new_path(tmp_path):
    """A model file on which there is no verdict yet."""
    return write_tiny_model(tmp_path / "new.onnx", name="new")


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """The names of the files for which a process was started."""
    names: list[str] = []
    start = trial._start

    def seen(name, limits):
        names.append(name)
        return start(name, limits)

    monkeypatch.setattr(trial, "_start", seen)
    return names


def test_load_of_a_new_file_tries_it_once(new_path, started):
    for _ in range(2):
        sdk.load(new_path).generate(1)
    assert started == ["new.onnx"]


def test_load_of_a_ready_made_model_tries_nothing(started):
    sdk.load("digits-gan").generate(1)
    assert not started


def test_load_of_bytes_that_this_process_made_tries_nothing(new_path, started):
    trust(new_path.read_bytes())
    sdk.load(new_path).generate(1)
    assert not started


@pytest.mark.slow
def test_load_of_an_exported_file_tries_nothing(tmp_path, trained, started):
    sdk.export(trained, tmp_path / "mine.onnx")
    sdk.load(tmp_path / "mine.onnx").generate(1)
    assert not started


def test_try_out_gives_the_verdict_of_looking_here(new_path):
    data = new_path.read_bytes()
    assert try_out(data, "new.onnx") == look(data, "new.onnx")
    assert try_out(data, "new.onnx").golden


def test_try_out_of_a_golden_miss_leaves_it_to_who_loads(tmp_path):
    graph = make_graph()
    bare = make_card(graph)
    golden = bare.golden.of(
        np.arange(4), {c.name: np.full(4, c.default, c.dtype) for c in bare.controls}, np.zeros((4, 8, 8, 1), np.uint8)
    )
    assert try_out(to_bytes(graph, make_card(graph, golden=golden)), "missed.onnx") == Verdict(True, True, {})


@posix
def test_try_out_of_golden_items_without_end_is_refused(monkeypatch):
    monkeypatch.setenv("AIGC_SDK_TRIAL_SECONDS", "1")
    graph = with_work([loop("for_ever")], LOOP)
    with pytest.raises(InvalidModel, match=r"takes more than 1 s of processor time .* set AIGC_SDK_TRIAL_SECONDS"):
        try_out(to_bytes(graph, make_card(graph)), "endless.onnx")


@linux
@pytest.mark.parametrize("megabytes", ["", "200"])
def test_try_out_keeps_to_the_memory_that_it_may_take(monkeypatch, megabytes):
    monkeypatch.setenv("AIGC_SDK_TRIAL_MB", megabytes)
    graph = allocation(2**25 if not megabytes else 2**23)  # of floats, for each of four items: 512 MB, or 128 MB
    data = to_bytes(graph, make_card(graph))
    if megabytes:
        with pytest.raises(GenerationFailed, match=r"needs more than the 200 MB .* set AIGC_SDK_TRIAL_MB"):
            try_out(data, "large.onnx")
    else:
        assert try_out(data, "large.onnx").is_safe


@pytest.mark.parametrize("name", ["AIGC_SDK_TRIAL_SECONDS", "AIGC_SDK_TRIAL_MB"])
@pytest.mark.parametrize("value", ["ten", "-1", "0", "1.5", "9" * 40])
def test_limits_of_a_variable_that_is_no_number_are_an_error(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest, match=f"{name} is '"):
        Limits.of(1000)


def test_limits_grow_with_the_file():
    small, large = Limits.of(1000), Limits.of(10**9)
    assert large.seconds > small.seconds + 10
    assert large.size_bytes > small.size_bytes + 5 * 10**9


def test_try_out_ends_at_the_deadline_and_leaves_no_process(monkeypatch):
    processes = remember_processes(monkeypatch)
    graph = with_work([loop("for_ever")], LOOP)
    with pytest.raises(DeadlineExceeded, match="before the deadline"):
        try_out(to_bytes(graph, make_card(graph)), "endless.onnx", deadline=time.monotonic() + 0.2)
    assert processes[0].returncode is not None


def test_try_out_ends_when_nobody_waits_for_it(monkeypatch):
    processes, stop = remember_processes(monkeypatch), Stop()
    graph = with_work([loop("for_ever")], LOOP)
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(GenerationFailed, match="was stopped"):
        stop.run(try_out, to_bytes(graph, make_card(graph)), "endless.onnx")
    assert processes[0].returncode is not None


def remember_processes(monkeypatch) -> list[subprocess.Popen]:
    processes = []
    start = trial._start

    def seen(*arguments):
        processes.append(start(*arguments))
        return processes[-1]

    monkeypatch.setattr(trial, "_start", seen)
    return processes


@pytest.mark.parametrize("executable", [None, "", "/nowhere/python3", "/usr/sbin/uwsgi"])
def test_load_without_an_interpreter_to_start_looks_here(new_path, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert len(sdk.load(new_path).generate(2)) == 2


def test_load_in_a_frozen_application_looks_here(new_path, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert len(sdk.load(new_path).generate(2)) == 2


@posix
@pytest.mark.parametrize("script", ["exit 3", "echo hello; cat > /dev/null", "echo ready_or_not"])
def test_load_with_an_interpreter_that_does_something_else_looks_here(new_path, tmp_path, monkeypatch, script):
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
    assert len(sdk.load(new_path).generate(2)) == 2


@posix
@pytest.mark.parametrize("end", ["kill -SEGV $$", "kill -KILL $$", "exit 1"])
def test_try_out_that_crashes_is_refused(tmp_path, monkeypatch, end):
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\necho ready\n{end}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(InvalidModel, match="crashes onnxruntime while it is loaded"):
        try_out(to_bytes(make_graph(), make_card(make_graph())), "tiny.onnx")


def test_load_looking_here_refuses_what_the_checks_refuse(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    path = tmp_path / "strings.onnx"
    path.write_bytes(HOSTILE["doubled-string"]())
    with pytest.raises(InvalidModel, match="holds strings"):
        sdk.load(path)


def test_load_refused_file_is_tried_again(tmp_path, started):
    graph = make_graph()
    graph.graph.initializer.append(numpy_helper.from_array(np.array([np.nan, 1], np.float32), "w"))
    path = tmp_path / "refused.onnx"
    path.write_bytes(to_bytes(graph, make_card(graph)))
    for _ in range(2):
        with pytest.raises(InvalidModel, match="holds NaN"):
            sdk.load(path)
    assert len(started) == 2


def test_load_in_threads_tries_each_file(tmp_path):
    paths = [write_tiny_model(tmp_path / f"new-{i}.onnx", name=f"new-{i}") for i in range(3)]
    names = []
    threads = [threading.Thread(target=lambda path=path: names.append(sdk.load(path).card.name)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == ["new-0", "new-1", "new-2"]


def test_add_scores_to_a_safe_file_keeps_it_safe(new_path, started):
    from aigc_sdk.evaluation.scores import add_scores

    sdk.load(new_path)
    add_scores(new_path, [{"metric": "likeness", "value": 1.0}])
    assert sdk.load(new_path).card.scores
    assert started == ["new.onnx"]
