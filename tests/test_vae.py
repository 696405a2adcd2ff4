"""The VAE family: shapes, losses against their formulas, and what its samplers promise."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from aigc_sdk.data import DataSpec
from aigc_sdk.errors import InvalidData, UnknownName
from aigc_sdk.training.family import parse_config
from aigc_vae import losses
from aigc_vae.family import VAE

SHAPES = [(8, 8, 1), (9, 8, 3), (28, 28, 1), (30, 17, 4), (8, 128, 3), (64, 64, 3), (128, 128, 1)]


def build(shape=(8, 8, 1), labels=("a", "b", "c"), frequencies=(0.2, 0.3, 0.5), **config) -> VAE:
    torch.manual_seed(0)
    family = VAE(parse_config("vae", VAE.Config, {"latent": 4, "width": 8, "blocks": 1, **config}))
    family.build(DataSpec(shape, tuple(labels), tuple(frequencies)))
    # Away from the start, where every residual block is the identity.
    for parameter in family.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return family.eval()


def controls_of(family: VAE, task: str, n: int, **values) -> dict[str, torch.Tensor]:
    dtypes = {"int64": torch.int64, "float32": torch.float32}
    return {
        c.name: torch.full((n,), values.get(c.name, c.default), dtype=dtypes[c.dtype]) for c in family.controls(task)
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_networks_any_size_keep_the_shape(shape):
    family = build(shape)
    x, y = torch.rand(2, shape[2], *shape[:2]), torch.eye(3)[:2]
    mu, logvar = family.encoder(x, y)
    assert mu.shape == logvar.shape == (2, 4)
    assert family.decoder(mu, y).shape == x.shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", VAE.tasks)
def test_sampler_any_size_makes_what_the_output_says(shape, task):
    family = build(shape)
    content = family.sampler(task)(torch.arange(3), controls_of(family, task, 3))
    assert content.dtype == torch.uint8
    assert content.shape == (3, *family.output(task).shape) == (3, *shape)


@pytest.mark.parametrize("shape", [(7, 8, 1), (8, 129, 1), (200, 200, 3)])
def test_build_size_out_of_range_raises(shape):
    with pytest.raises(InvalidData, match="8 to 128"):
        build(shape)


def test_build_without_labels_has_no_label_control():
    family = build(labels=(), frequencies=())
    assert [control.name for control in family.controls("generate")] == ["temperature"]
    content = family.sampler("interpolate")(torch.arange(2), controls_of(family, "interpolate", 2))
    assert content.shape == (2, 8, 8, 1)


def test_sampler_unknown_task_raises():
    with pytest.raises(UnknownName, match="Did you mean 'interpolate'"):
        build().sampler("interpolat")


def test_reconstruction_equals_bernoulli_log_probability():
    logits, x = torch.randn(5, 1, 3, 3), torch.bernoulli(torch.full((5, 1, 3, 3), 0.5))
    wanted = -Bernoulli(logits=logits).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(losses.reconstruction(logits, x), wanted, atol=1e-5)


def test_kl_divergence_equals_torch_distributions():
    mu, logvar = torch.randn(5, 6), torch.randn(5, 6)
    wanted = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(losses.kl_divergence(mu, logvar), wanted, atol=1e-5)


def test_log_weight_equals_torch_distributions():
    mu, logvar, logits = torch.randn(5, 6), torch.randn(5, 6), torch.randn(5, 1, 3, 3)
    x = torch.bernoulli(torch.full((5, 1, 3, 3), 0.5))
    z = losses.sample_latent(mu, logvar)
    wanted = Normal(0.0, 1.0).log_prob(z).sum(1) + Bernoulli(logits=logits).log_prob(x).flatten(1).sum(1)
    wanted -= Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)
    assert torch.allclose(losses.log_weight(logits, x, z, mu, logvar), wanted, atol=1e-4)


def test_sample_latent_many_draws_have_the_mean_and_deviation():
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, math.log(4.0)]])
    torch.manual_seed(0)
    draws = losses.sample_latent(mu.expand(50_000, 2), logvar.expand(50_000, 2))
    assert torch.allclose(draws.mean(0), mu[0], atol=0.05)
    assert torch.allclose(draws.std(0), torch.tensor([1.0, 2.0]), atol=0.05)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (50, 1.5), (100, 3.0), (1000, 3.0)])
def test_training_step_beta_warms_up(step, weight):
    family = build(beta=3.0, beta_warmup_steps=100)
    batch = {"images": torch.rand(4, 1, 8, 8), "labels": torch.tensor([0, 1, 2, 0])}
    result, _ = family.training_step(batch, "all", step, None)
    wanted = result.parts["reconstruction"] + weight * result.parts["kl"]
    assert torch.allclose(result.total, wanted)


def test_terms_binarize_sees_black_and_white_alone():
    family = build(binarize=True)
    seen = []
    family.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    family.terms({"images": torch.full((64, 1, 8, 8), 0.25), "labels": torch.zeros(64, dtype=torch.long)})
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert seen[0].mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("label", [-1, 1])
def test_interpolate_ends_are_what_generate_makes(label):
    family = build()
    seed, seed_b = torch.arange(20), torch.arange(20) + 1000
    values = {"label": label, "temperature": 0.8}
    generate, interpolate = family.sampler("generate"), family.sampler("interpolate")
    for t, wanted in ((0.0, seed), (1.0, seed_b)):
        controls = {**controls_of(family, "interpolate", 20, t=t, **values), "seed_b": seed_b}
        assert torch.equal(interpolate(seed, controls), generate(wanted, controls_of(family, "generate", 20, **values)))


def test_interpolate_halfway_latent_is_as_spread_as_its_ends():
    family = build()
    sampler = family.sampler("interpolate")
    seen = []
    family.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    n = 5000
    sampler(torch.arange(n), {**controls_of(family, "interpolate", n), "seed_b": torch.arange(n) + 10**6})
    assert seen[0].std() == pytest.approx(1, abs=0.02)


def test_generate_temperature_zero_gives_one_image_for_each_label():
    family = build()
    content = family.sampler("generate")(torch.arange(9), controls_of(family, "generate", 9, temperature=0, label=1))
    assert (content == content[0]).all()


def test_generate_label_minus_one_follows_the_training_frequencies():
    family = build(frequencies=(0.0, 1.0, 0.0))
    n = 50
    free, fixed = (
        family.sampler("generate")(torch.arange(n), controls_of(family, "generate", n, label=v)) for v in (-1, 1)
    )
    assert torch.equal(free, fixed)
