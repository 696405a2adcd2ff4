"""digits-vae with onnxruntime-openvino, whose CPU plugin truncates int64: an error that names the device.

    python benchmarks/openvino.py [--versions 1.22.0 1.24.1]

Each version of onnxruntime-openvino gets an environment of its own, with the package as this tree has it. 1.22.0
loads the file and makes other digits; 1.24.1 says that the file is invalid, which it is not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import Report

ROOT = Path(__file__).parents[1]
VERSIONS = ("1.22.0", "1.24.1")
NEEDED = ("click", "numpy", "onnx", "Pillow", "pluggy", "pydantic", "rich")
BLAMED = ("DeviceUnavailable", "GenerationFailed")
PROVIDER = "OpenVINOExecutionProvider"

PROGRAM = """
import hashlib, json
import aigc_sdk as sdk
from aigc_sdk.errors import AigcError

found = {}
for device in ("cpu", "openvino"):
    try:
        digits = sdk.generate("digits-vae", 16, seed=7, device=device).to_numpy()
        found[device] = {"made": hashlib.sha256(digits.tobytes()).hexdigest()}
    except AigcError as error:
        found[device] = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(found))
"""


def run_with(version: str, folder: Path) -> dict[str, Any]:
    """Return what digits-vae makes on each device with one version, in an environment made for it."""
    environment = folder / version
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"onnxruntime-openvino=={version}", *NEEDED], check=True, stderr=subprocess.DEVNULL)
    # Without what it depends on: onnxruntime would overwrite the other build.
    subprocess.run([*pip, "--no-deps", ROOT], check=True, stderr=subprocess.DEVNULL)
    cache = {"AIGC_SDK_CACHE": str(folder / f"cache-{version}")}
    done = subprocess.run([python, "-c", PROGRAM], capture_output=True, text=True, cwd=folder, env=cache, check=False)
    if done.returncode:
        return {"crash": f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Judge each device with each version; return 1 when one is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", nargs="+", default=VERSIONS)
    options = parser.parse_args()
    report = Report("aigc-sdk", "onnxruntime")
    here = json.loads(subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        for version in options.versions:
            found = run_with(version, Path(folder))
            cpu, openvino = (found.get(device, found) for device in ("cpu", "openvino"))
            print(json.dumps(found))
            same = cpu.get("made") == here["cpu"]["made"]
            report.at_least(f"onnxruntime-openvino {version}, cpu: makes the digits of here", same, 1)
            told = openvino.get("error") in BLAMED and PROVIDER in openvino["message"]
            report.at_least(f"onnxruntime-openvino {version}, openvino: an error that names it", told, 1)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
