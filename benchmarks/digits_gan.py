"""How good digits-gan is: label control by an independent judge, and Frechet distance and recall beside a VAE's.

    python benchmarks/digits_gan.py [--vae FOLDER]

The VAE is one of the default preset, trained for as many minutes as digits-gan. With --vae it is trained in FOLDER, if
it is not there yet, and its figures are kept beside those of digits-gan's training; without, the kept ones are printed.
Features are those of digits-features, the reference is MNIST's test set, and real digits are its training set.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

import aigc_sdk as sdk
from aigc_sdk.files import write_bytes
from datasets import fetch
from digits_vae import label_control
from timing import Report, git_commit, machine
from vae_prior import score, train_images

MODEL = "digits-gan"
KEPT = Path(__file__).parent / "runs" / MODEL
IMAGES = 5000
LEAST_LABEL_SHARE, MOST_OF_VAE, LEAST_RECALL = 0.98, 0.5, 0.6


def vae_figures(folder: Path, minutes: float) -> None:
    """Train a VAE without an option but the minutes, and keep its figures."""
    made = folder / "made.json"
    if not made.exists():
        at = git_commit()
        run = sdk.train("vae", fetch("mnist"), out=folder, resume=folder.exists(), epochs=None, minutes=minutes)
        values = {
            "commit": at,
            "machine": machine(["torch"]),
            "cores": len(os.sched_getaffinity(0)),
            "minutes": minutes,
        }
        write_bytes(made, json.dumps({**values, "steps": run.metrics[-1]["step"]}).encode())
    images = sdk.generate(folder / "model.onnx", IMAGES, seed=0).to_numpy()
    figures = json.loads(made.read_text()) | {"scores": score(images, IMAGES)}
    write_bytes(KEPT / "vae.json", (json.dumps(figures, indent=1) + "\n").encode())
    write_bytes(KEPT / "vae.jsonl", (folder / "metrics.jsonl").read_bytes())


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vae", type=Path, help="train the VAE in this folder")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    report = Report("aigc-sdk", "torch", "onnxruntime")
    made = json.loads((KEPT / "made.json").read_text())
    if arguments.vae:
        vae_figures(arguments.vae, made["minutes"])
    vae = json.loads((KEPT / "vae.json").read_text())
    print(f"digits-gan: {made}")
    print(f"vae: { ({name: value for name, value in vae.items() if name != 'scores'}) }")

    ours = score(sdk.generate(MODEL, IMAGES, seed=0).to_numpy(), IMAGES)
    real, theirs = score(train_images(IMAGES), IMAGES), vae["scores"]
    for name, figures in (("real digits", real), ("digits-gan", ours), ("vae", theirs)):
        report.figure(f"{name}: Frechet distance", figures["frechet"])
        report.figure(f"{name}: that as a multiple of real digits'", figures["frechet"] / real["frechet"], "x")
        report.figure(f"{name}: precision", figures["precision"])
        report.figure(f"{name}: recall", figures["recall"])
    report.at_most("Frechet distance, digits-gan to vae", ours["frechet"] / theirs["frechet"], MOST_OF_VAE, "x")
    report.at_least("recall, digits-gan to real digits", ours["recall"] / real["recall"], LEAST_RECALL, "x")
    return report.exit_code if label_control(MODEL, LEAST_LABEL_SHARE) else 1


if __name__ == "__main__":
    sys.exit(main())
