"""Run an ONNX model under Node.js, natively or as WebAssembly, to compare what it makes with Python's."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

NODE_FOLDER = Path(__file__).parent / "node"
RUN_TIMEOUT_S = 120
INSTALL_TIMEOUT_S = 600


def ensure_installed() -> None:
    """Install the JavaScript runtimes when they are missing or older than the lock file.

    Not safe to call from several processes at once: `npm ci` starts by deleting what is installed.

    Raises:
        RuntimeError: If npm is not found, or fails.
    """
    # npm writes this file last, so an interrupted installation does not count as one.
    stamp = NODE_FOLDER / "node_modules" / ".package-lock.json"
    lock = NODE_FOLDER / "package-lock.json"
    if stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
        return
    # The package of the native runtime brings its CPU binding; its install script would only fetch GPU libraries.
    command = [_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    environment = os.environ | {"ONNXRUNTIME_NODE_INSTALL": "skip"}
    _run(command, timeout_s=INSTALL_TIMEOUT_S, environment=environment)


def run_in_javascript(
    runtime: Literal["node", "web"], model: Path, feeds: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run a model once in JavaScript and return its outputs; call `ensure_installed` first.

    Args:
        runtime: "node" is onnxruntime-node on its native CPU provider; "web" is onnxruntime-web's WebAssembly build on
            one thread.
        model: The ONNX file.
        feeds: One array per model input: int64, int32, float32, bool or uint8; floats must be finite.

    Returns:
        The outputs by name, `content` and all others, in the shape and dtype that the runtime reports.

    Raises:
        RuntimeError: If node is not found, fails, or takes longer than `RUN_TIMEOUT_S`; carries node's stderr.
        ValueError: If a float is infinite or not a number, which JSON cannot hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        feeds_path = Path(folder, "feeds.json")
        encoded = {name: _encode(array) for name, array in feeds.items()}
        feeds_path.write_text(json.dumps(encoded, allow_nan=False), encoding="utf-8")
        script = NODE_FOLDER / "run_model.mjs"
        command = [_program("node"), str(script), runtime, str(model.resolve()), str(feeds_path), folder]
        report = json.loads(_run(command, timeout_s=RUN_TIMEOUT_S).splitlines()[-1])
        return {
            name: np.fromfile(Path(folder, f"{name}.bin"), dtype=made["dtype"]).reshape(made["shape"])
            for name, made in report["outputs"].items()
        }


def _encode(array: np.ndarray) -> dict[str, object]:
    """Describe an array for run_model.mjs."""
    # JSON numbers are doubles in JavaScript, exact only to 2^53: int64 travels as text.
    values = array.astype(str) if array.dtype == np.int64 else array
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": values.ravel().tolist()}


def _program(name: str) -> str:
    """Return the path of a command-line program, or say that it is missing."""
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} was not found on PATH; the JavaScript tests need Node.js with npm")
    return path


def _run(command: list[str], *, timeout_s: float, environment: dict[str, str] | None = None) -> str:
    """Run a command in tests/node and return its stdout; turn every failure into a RuntimeError with its stderr."""
    title = " ".join(Path(word).name for word in command[:3])
    try:
        done = subprocess.run(
            command,
            check=False,  # the error below shows stderr, CalledProcessError would not
            cwd=NODE_FOLDER,
            env=environment,
            timeout=timeout_s,
            capture_output=True,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{title}: no end after {timeout_s} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"{title}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout
