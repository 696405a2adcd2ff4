"""What the task inpaint of digits-vae makes of half-covered digits, in figures and as a picture.

    python benchmarks/inpaint.py [--model digits-vae:inpaint] [--images 500] [--out inpaint.png]

Of MNIST's test digits the lower, the upper or the right half is covered, or the middle. An independent classifier
then says how many of the filled ones show the digit that was
covered, which need not be: half a digit is often half of another one, too. The picture has the digits, what was
left of them, and four ways to fill them, for each cover.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import aigc_sdk as sdk
from datasets import fetch
from judge import judge
from timing import machine

SHOWN = 16
WAYS = 4
COVER_LEVEL = 90
LEAST_SAME = 0.75
Images = NDArray[np.uint8]

COVERS = {
    "lower half": np.s_[14:, :],
    "upper half": np.s_[:14, :],
    "right half": np.s_[:, 14:],
    "middle": np.s_[9:19, 9:19],
}


def main() -> int:
    """Print the figures and write the picture; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-vae:inpaint")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("inpaint.png"))
    arguments = parser.parse_args()
    print(machine(["onnxruntime"]))
    with np.load(fetch("mnist-test")) as archive:
        images, labels = archive["images"][: arguments.images], archive["labels"][: arguments.images]

    name_digits, blocks, least = judge(), [], 1.0
    print(f"{len(images)} digits as they are: {(name_digits(images) == labels).mean():.3f} named rightly")
    with sdk.load(arguments.model) as model:
        for name, cover in COVERS.items():
            mask = np.full((28, 28, 1), 255, np.uint8)
            mask[cover] = 0
            filled = model.generate(image=images, mask=mask, seed=0).to_numpy()
            if (filled != images)[:, mask[..., 0] == 255].any():
                raise SystemExit(f"{name}: kept pixels changed")
            same = float((name_digits(filled) == labels).mean())
            told = model.generate(image=images, mask=mask, label=labels.tolist(), seed=0).to_numpy()
            print(
                f"{name} covered: {same:.3f} show the digit that was covered, the label left to the model;"
                f" {(name_digits(told) == labels).mean():.3f} with the label given"
            )
            least = min(least, same)
            blocks.append(picture(model, images[:SHOWN], mask))
    sheet = Image.fromarray(np.concatenate(blocks))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.LANCZOS).save(arguments.out)
    print(f"{arguments.out}; least share {least:.3f} (at least {LEAST_SAME})")
    return 0 if least >= LEAST_SAME else 1


def picture(model: sdk.Model, images: Images, mask: Images) -> Images:
    """Return the digits, what is left of them, and ways to fill them, one row each, uint8 (height, width)."""
    left = np.where(mask == 255, images, np.uint8(COVER_LEVEL))
    ways = [model.generate(image=images, mask=mask, seed=seed).to_numpy() for seed in range(1, WAYS + 1)]
    return np.concatenate([np.concatenate(list(row[..., 0]), axis=1) for row in (images, left, *ways)])


if __name__ == "__main__":
    sys.exit(main())
