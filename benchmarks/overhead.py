"""What the SDK adds to a loaded model: 64 pictures through `Model.generate`, against onnxruntime and Pillow alone.

    python benchmarks/overhead.py digits-vae

Both run one and the same session. With two in a process, the threads of the one that has just finished keep a core
busy for a while and slow the other down, by more than what is measured here.
"""

import argparse
import gc
import sys

import numpy as np
import onnxruntime as ort
from PIL import Image

import aigc_sdk as sdk
from aigc_sdk.seeds import item_seeds
from timing import Report, interleave, medians, stopwatch

N = 64
RUNS = 400
SEED = 1

# The difference may be this share of the bare run, or this many milliseconds if that is more.
SHARE = 0.05
LEAST_MS = 0.3


def session_inside() -> ort.InferenceSession:
    """Return the only onnxruntime session of this process."""
    [session] = [found for found in gc.get_objects() if type(found) is ort.InferenceSession]
    return session


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time generation with a loaded model.")
    parser.add_argument(
        "model", nargs="?", default="digits-vae", help="a ready-made name, or the path of an .onnx file"
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="interleaved runs of each")
    arguments = parser.parse_args()
    model = sdk.load(arguments.model)
    session = session_inside()
    # The bare side gets its arrays ready-made: to make and check them is the SDK's work.
    feeds = {"seed": item_seeds(SEED, N)}
    feeds |= {control.name: np.full(N, control.default, control.dtype) for control in model.card.controls}

    def with_sdk() -> list[Image.Image]:
        return [item.to_pil() for item in model.generate(N, seed=SEED)]

    def bare() -> list[Image.Image]:
        content = session.run(["content"], feeds)[0]
        return [Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels) for pixels in content]

    report = Report("aigc-sdk", "numpy", "onnxruntime", "pillow")
    differing = sum(ours.tobytes() != theirs.tobytes() for ours, theirs in zip(with_sdk(), bare(), strict=True))
    report.at_most("pictures that are not the bare session's", differing, 0)
    results = interleave({"sdk": stopwatch(with_sdk), "bare": stopwatch(bare)}, arguments.runs, warmups=20)
    times_ms = {name: 1000 * seconds for name, seconds in medians(results).items()}
    report.figure(f"{N} pictures, session.run and Pillow", times_ms["bare"], "ms")
    report.figure(f"{N} pictures, Model.generate and to_pil", times_ms["sdk"], "ms")
    added_ms = times_ms["sdk"] - times_ms["bare"]
    report.figure("added by the SDK", 100 * added_ms / times_ms["bare"], "%")
    report.at_most("added by the SDK", added_ms, max(LEAST_MS, SHARE * times_ms["bare"]), "ms")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
