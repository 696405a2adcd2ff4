"""A classifier of handwritten digits that judges generated ones: does a picture look like the digit that was asked for?

    python benchmarks/judge.py

It shares nothing with the models under judgement but MNIST's training digits: another architecture, another loss,
another seed. It is trained on first use, in about two minutes on one thread, and must know 99 % of the official test
digits before its weights are kept in the cache.
"""

import hashlib
import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aigc_sdk.errors import InvalidData, TrainingFailed
from aigc_sdk.files import atomic_write, cache_folder, make_folder
from datasets import fetch

Judge = Callable[[NDArray[np.uint8]], NDArray[np.int64]]

LOWEST_ACCURACY = 0.99

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How the judge is built and trained."""

    seed: int = 99
    width: int = 16  # channels of the first convolution
    dropout: float = 0.25
    epochs: int = 4
    batch_size: int = 250
    peak_lr: float = 6e-3
    weight_decay: float = 0.01
    max_shift_px: int = 2


def build_network(recipe: Recipe) -> nn.Sequential:
    """Return the untrained network: float32 (n, 1, 28, 28) from 0 to 1 in, logits (n, 10) out.

    A LeNet (LeCun et al. 1998) with batch normalisation; its weights come from torch's global generator.
    """

    def convolution(channels_in: int, channels_out: int, kernel_px: int) -> list[nn.Module]:
        layer = nn.Conv2d(channels_in, channels_out, kernel_px, padding=kernel_px // 2, bias=False)
        return [layer, nn.BatchNorm2d(channels_out), nn.ReLU()]

    width = recipe.width
    return nn.Sequential(
        *convolution(1, width, 5),
        nn.MaxPool2d(2),
        *convolution(width, 2 * width, 3),
        *convolution(2 * width, 2 * width, 3),
        nn.MaxPool2d(2),
        *convolution(2 * width, 4 * width, 3),
        nn.Flatten(),
        nn.Dropout(recipe.dropout),
        nn.Linear(4 * width * 7 * 7, 10),
    )


def train(recipe: Recipe, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> nn.Sequential:
    """Return a network trained on the digits; torch's global generator is left as it was.

    Args:
        recipe: how.
        images: uint8 (n, 28, 28, 1).
        labels: int64 (n,), from 0 to 9.
    """
    n, shift = len(images), recipe.max_shift_px
    # Room on every side, so that a shifted digit is a 28x28 window of the same picture.
    padded = torch.from_numpy(np.pad(images[..., 0], ((0, 0), (shift, shift), (shift, shift))))
    targets = torch.from_numpy(labels)
    window = torch.arange(28)

    # Dropout and the first weights can only draw from the global generator, hence the fork.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        # Measured on one thread: channels last takes a fifth off a step, bfloat16 autocast nothing.
        network = build_network(recipe)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks the keyword
        optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
        steps = recipe.epochs * -(-n // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_lr, total_steps=steps, pct_start=0.25)

        for epoch in range(recipe.epochs):
            for batch in torch.split(torch.randperm(n), recipe.batch_size):
                # Each digit is shifted on its own, by up to `shift` either way: x float32 (batch, 1, 28, 28).
                rows, columns = torch.randint(0, 2 * shift + 1, (2, len(batch), 1)) + window
                x = padded[batch[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1) / 255
                loss = nn.functional.cross_entropy(network(x), targets[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
                optimizer.step()
                schedule.step()
            _log.info("judge: epoch %d of %d, loss of the last batch %.4f", epoch + 1, recipe.epochs, loss.item())
    network.eval()
    return network


def judge() -> Judge:
    """Return the function that names digits, after training it if the cache does not have it.

    The function takes images uint8 (n, 28, 28, 1), light digits on black as in MNIST, and returns the digits it sees,
    int64 (n,). It raises InvalidData for arrays of another shape or type.

    Raises:
        TrainingFailed: the trained network knows too few of the test digits to judge others.
        StorageError, InvalidData: see `datasets.fetch`.
    """
    recipe = Recipe()
    # Another recipe or another way of training is another file, so old weights are never taken for new ones.
    text = "".join(inspect.getsource(part) for part in (Recipe, build_network, train))
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = make_folder(cache_folder()) / f"judge-{key}.safetensors"
    if path.exists():
        network = build_network(recipe)
        network.load_state_dict(load_file(path))
        return _judge_of(network.eval())

    start = time.perf_counter()
    _log.info("judge: training on first use, about two minutes on one thread")
    network = train(recipe, *_digits("mnist"))
    accuracy = _accuracy(_judge_of(network))
    if accuracy < LOWEST_ACCURACY:
        raise TrainingFailed(f"The judge knows {accuracy:.2%} of MNIST's test digits; it needs {LOWEST_ACCURACY:.0%}.")
    with atomic_write(path) as temporary:
        save_file({name: weights.contiguous() for name, weights in network.state_dict().items()}, temporary)
    _log.info("judge: trained in %.0f s", time.perf_counter() - start)
    return _judge_of(network)


def accuracy_on_test() -> float:
    """Return the share of MNIST's 10,000 test digits that the judge names rightly; raises what `judge` raises."""
    return _accuracy(judge())


def _judge_of(network: nn.Sequential) -> Judge:
    @torch.inference_mode()
    def name_digits(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 1):
            raise InvalidData(f"The judge was given {images.dtype} {images.shape}; it takes uint8 (n, 28, 28, 1).")
        x = torch.tensor(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        digits: list[Tensor] = [network(batch / 255).argmax(1) for batch in torch.split(x, 1000)]
        return torch.cat(digits).numpy()

    return name_digits


def _accuracy(name_digits: Judge) -> float:
    images, labels = _digits("mnist-test")
    return float((name_digits(images) == labels).mean())


def _digits(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load(fetch(name)) as data:
        return data["images"], data["labels"]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(f"accuracy on MNIST's test digits: {accuracy_on_test():.4f}")
