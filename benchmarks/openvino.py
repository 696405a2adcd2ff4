"""digits-vae with onnxruntime-openvino, whose CPU plugin truncates int64: an error that names the device.

    python benchmarks/openvino.py [--versions 1.22.0 1.24.1] [--json openvino.json]

Each version of onnxruntime-openvino gets an environment of its own, with the package as this tree has it. 1.22.0
loads the file and makes other digits; 1.24.1 says that the file is invalid, which it is not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def judge(version: str, found: dict[str, Any], wanted: str) -> list[dict[str, Any]]:
    """Return a row for each device: what was found, what has to be, and whether it is so."""
    cpu, openvino = (found.get(device, found) for device in ("cpu", "openvino"))
    return [
        {
            "what": f"onnxruntime-openvino {version}, device='cpu'",
            "found": "the digits of here" if cpu.get("made") == wanted else cpu,
            "bound": "the digits of here",
            "passed": cpu.get("made") == wanted,
        },
        {
            "what": f"onnxruntime-openvino {version}, device='openvino'",
            "found": f"{openvino['error']}: {openvino['message']}" if "error" in openvino else openvino,
            "bound": f"{' or '.join(BLAMED)} that names {PROVIDER}",
            "passed": openvino.get("error") in BLAMED and PROVIDER in openvino["message"],
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", nargs="+", default=VERSIONS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    here = json.loads(subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for version in options.versions
            for row in judge(version, run_with(version, Path(folder)), here["cpu"]["made"])
        ]
    for row in rows:
        print(f"{'PASS' if row['passed'] else 'FAIL'}  {row['what']}: {row['found']} (has to be: {row['bound']})")
    if options.json:
        options.json.write_text(json.dumps({"date": datetime.now(UTC).date().isoformat(), "rows": rows}, indent=1))
    sys.exit(not all(row["passed"] for row in rows))


if __name__ == "__main__":
    main()
