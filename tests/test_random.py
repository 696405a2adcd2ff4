"""Random bits in torch: known answers, and the same in the core and in an exported graph."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from aigc_onnx.convert import trace
from aigc_sdk import seeds
from aigc_sdk.training.random import Stream, bits, draw_choice, normal, threefry, uniform

SEEDS = torch.tensor([0, 1, 7, 2**53 - 1, -1, -(2**63), 2**63 - 1])

# Published in docs/contract.md: the first three draws of seed 7 from stream 0.
WORDS_OF_SEED_7 = [3901892970, 2964889903, 407867057]
UNIFORMS_OF_SEED_7 = [0.9084802269935608, 0.6903172135353088, 0.0949639081954956]
NORMALS_OF_SEED_7 = [1.3314546346664429, 0.49674975872039795, -1.3107925653457642]

KNOWN_ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN_ANSWERS)
def test_threefry_known_answer_matches(key, counter, words):
    word0, word1 = threefry(tuple(map(torch.tensor, key)), tuple(map(torch.tensor, counter)))
    assert (word0.item(), word1.item()) == words


def test_bits_any_seed_equals_the_core():
    for seed, row in zip(SEEDS.tolist(), bits(SEEDS, 50, Stream.LABEL).tolist(), strict=True):
        key = (seed % 2**32, (seed >> 32) % 2**32)
        assert row == [seeds.threefry(key, (position, Stream.LABEL))[0] for position in range(50)]


@pytest.mark.parametrize(
    ("draw", "vector"), [(bits, WORDS_OF_SEED_7), (uniform, UNIFORMS_OF_SEED_7), (normal, NORMALS_OF_SEED_7)]
)
def test_draws_published_vector_matches(draw, vector):
    assert draw(torch.tensor([7]), 3, Stream.LATENT)[0].tolist() == vector


def test_bits_longer_draw_starts_with_the_shorter():
    assert torch.equal(bits(SEEDS, 100, Stream.LATENT)[:, :9], bits(SEEDS, 9, Stream.LATENT))


def test_uniform_many_draws_are_uniform():
    values = uniform(torch.arange(2000), 500, Stream.LATENT)
    assert values.min() >= 0 and values.max() < 1
    counts = torch.histc(values, 20, 0, 1)
    expected = values.numel() / 20
    # Chi-squared with 19 degrees of freedom: above 43.8 once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


def test_normal_many_draws_are_normal():
    values = normal(torch.arange(4000), 250, Stream.LATENT).double()
    assert abs(values.mean()) < 0.004
    assert values.std() == pytest.approx(1, abs=0.004)
    assert (values**4).mean() == pytest.approx(3, abs=0.05)
    assert 4 < values.abs().max() < 4.3


def test_streams_do_not_correlate():
    many = torch.arange(5000)
    one, other = (normal(many, 20, stream).flatten() for stream in (Stream.LATENT, Stream.LABEL))
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.015


def test_streams_numbers_are_distinct_and_spare_the_item_seeds():
    numbers = [int(stream) for stream in Stream]
    assert len(set(numbers)) == len(Stream.__members__)
    assert seeds.ITEM_STREAM not in numbers


def test_draw_choice_minus_one_follows_the_frequencies():
    cumulative = torch.tensor([0.1, 0.1, 0.7, 1.0])
    many = torch.arange(20_000)
    drawn = draw_choice(torch.full_like(many, -1), many, cumulative)
    shares = torch.bincount(drawn, minlength=4) / len(many)
    assert torch.allclose(shares, torch.tensor([0.1, 0.0, 0.6, 0.3]), atol=0.015)
    assert shares[1] == 0
    assert torch.equal(draw_choice(torch.full_like(many, 1), many, cumulative), torch.ones_like(many))


class _Draws(nn.Module):
    def forward(self, seed: Tensor, controls: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        del controls
        return bits(seed, 300, Stream.LATENT), uniform(seed, 300, Stream.LABEL), normal(seed, 300, Stream.LATENT)


def test_exported_graph_draws_equal_torch_to_the_bit(tmp_path):
    graph = trace(_Draws(), {"seed": torch.arange(4)}, {"controls": {}}, ("bits", "uniform", "normal"))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for given in (SEEDS, torch.arange(1000) * 7919 - 5, torch.tensor([3])):
        for got, wanted in zip(session.run(None, {"seed": given.numpy()}), _Draws()(given, {}), strict=True):
            assert np.array_equal(got, wanted.numpy())
