"""The GAN family: its networks, losses, augmentation, samplers, and what it watches for."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aigc_gan import augment, losses, networks
from aigc_gan.family import GAN
from aigc_gan.watch import Filters, Watch
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import InvalidData, UnknownName
from aigc_sdk.training.family import parse_config
from aigc_sdk.training.random import Stream, normal
from aigc_sdk.training.sampling import premultiplied

SHAPES = [(8, 8, 1), (9, 8, 3), (28, 28, 1), (30, 17, 4), (8, 128, 3), (64, 64, 3), (128, 128, 1)]
NETWORKS = ["dcgan", "resnet", "style", "mlp"]
LABELS = ("a", "b", "c")
FREQUENCIES = (0.2, 0.3, 0.5)


def _small(config):
    width = {} if config.get("network") == "mlp" else {"width": 4}  # mlp has none
    return {"latent": 6, **width, **config}


def build(shape=(8, 8, 1), labels=LABELS, frequencies=FREQUENCIES, n=100, **config) -> GAN:
    torch.manual_seed(0)
    family = GAN(parse_config("gan", GAN.Config, _small(config)))
    family.build(DataSpec(shape, tuple(labels), tuple(frequencies), n))
    return family.eval()


def a_batch(shape=(8, 8, 1), n=12, labels=LABELS) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    batch = {"images": torch.rand(n, shape[2], *shape[:2])}
    return batch | ({"labels": torch.arange(n) % len(labels)} if labels else {})


def controls_of(family: GAN, task: str, n: int, **values) -> dict[str, torch.Tensor]:
    dtypes = {"int64": torch.int64, "float32": torch.float32}
    return {
        c.name: torch.full((n,), values.get(c.name, c.default or 0), dtype=dtypes[c.dtype])
        for c in family.controls(task)
    }


def generate(family: GAN, seeds: torch.Tensor, **values) -> torch.Tensor:
    return family.sampler("generate")(seeds, controls_of(family, "generate", len(seeds), **values))


# Networks.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_any_size_and_channels_fit(network, shape):
    family = build(shape, network=network)
    y = torch.eye(3)[[0, 1, 2, 0]]
    x = family.generator(torch.randn(4, 6), y)
    assert x.shape == (4, shape[2], *shape[:2])
    assert x.min() >= 0 and x.max() <= 1
    assert family.discriminator(x, y).shape == (4,)
    content = generate(family, torch.arange(3))
    assert content.dtype == torch.uint8
    assert content.shape == (3, *family.output("generate").shape) == (3, *shape)


@pytest.mark.parametrize("network", NETWORKS)
def test_generator_evaluated_keeps_items_apart(network):
    family = build(network=network)
    z, y = torch.randn(5, 6), torch.eye(3)[[0, 1, 2, 0, 1]]
    together = family.generator(z, y)
    for i in range(5):
        assert torch.allclose(family.generator(z[i : i + 1], y[i : i + 1])[0], together[i], atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_label_steers_generator_and_discriminator(network):
    family = build(network=network).train()
    optimizers = family.optimizers()
    for step in range(2):  # scales and shifts of all labels are equal at first
        for phase in family.phases(step):
            result, _ = family.training_step(a_batch(), phase, step, None)
            optimizers[phase].zero_grad()
            result.total.backward()
            optimizers[phase].step()
    family.eval()
    z = torch.randn(1, 6).expand(3, 6)
    x = family.generator(z, torch.eye(3))
    assert not torch.allclose(x[0], x[1], atol=1e-5)
    same = x[:1].expand_as(x)
    assert len(family.discriminator(same, torch.eye(3)).unique()) == 3


def test_conditional_norm_equals_its_definition():
    norm = networks.ConditionalNorm(4, 3).train()
    nn.init.normal_(norm.scale)
    nn.init.normal_(norm.shift)
    x, labels = torch.randn(10, 4, 5, 5) * 3 + 2, torch.arange(10) % 3
    plain = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    wanted = plain * norm.scale[labels][:, :, None, None] + norm.shift[labels][:, :, None, None]
    assert torch.allclose(norm(x, torch.eye(3)[labels]), wanted, atol=1e-5)


def test_styled_convolution_equals_convolving_with_modulated_weights():
    """Karras et al. 2020, eq. 1 and 3, as they stand: a weight of its own for each item."""
    torch.manual_seed(0)
    layer = networks._StyledConvolution(3, 5, 6)
    x, style = torch.randn(4, 3, 7, 7), torch.randn(4, 6)
    for item, scale, output in zip(x, layer.style(style), layer(x, style), strict=True):
        weight = layer.weight * scale[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        wanted = F.conv2d(item[None], weight, layer.bias, padding=1)[0]
        assert torch.allclose(output, wanted, atol=1e-5)


@pytest.mark.parametrize("network", ["dcgan", "resnet"])
def test_spectral_norm_brings_the_largest_singular_value_to_one(network):
    family = build((16, 16, 1), network=network, spectral_norm=True)
    x, y = torch.rand(4, 1, 16, 16), torch.eye(3)[[0, 1, 2, 0]]
    family.discriminator.train()
    for _ in range(200):
        family.discriminator(x, y)  # each pass is a step of the power iteration
    family.discriminator.eval()
    weights = [m.weight for m in family.discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    largest = [torch.linalg.svdvals(weight.flatten(1))[0].item() for weight in weights]
    assert largest == pytest.approx([1] * len(weights), abs=0.05)


@pytest.mark.parametrize(("network", "expected"), [("dcgan", False), ("resnet", True), ("style", False)])
def test_spectral_norm_left_out_is_for_resnet_alone(network, expected):
    names = build(network=network).discriminator.state_dict()
    assert any("parametrizations" in name for name in names) == expected


def test_preset_of_a_network_gives_way_to_what_is_given():
    config = build(network="resnet", learning_rate=1e-4).config
    assert (config.loss, config.discriminator_learning_rate, config.learning_rate) == ("hinge", 1e-3, 1e-4)
    assert build(network="resnet", loss="wgan-gp", spectral_norm=False).config.loss == "wgan-gp"
    assert (build().config.loss, build().config.learning_rate) == ("non-saturating", 2e-3)


def test_projection_adds_the_product_of_features_and_label():
    """Miyato & Koyama 2018, eq. 3: the logit grows by what the label's vector and the features have in common."""
    head = networks._Head(4, 3, normalised=False)
    features, y = torch.randn(5, 4), torch.eye(3)[[0, 1, 2, 0, 1]]
    wanted = features @ head.logit.weight[0] + head.logit.bias
    wanted = wanted + (features * head.projection.weight.T[y.argmax(1)]).sum(1) / 2
    assert torch.allclose(head(features, y), wanted, atol=1e-6)


def test_discriminator_sees_that_all_items_are_the_same():
    family = build()
    x, y = torch.rand(8, 1, 8, 8), torch.eye(3)[[0] * 8]
    among_others, among_copies = family.discriminator(x, y)[0], family.discriminator(x[:1].expand_as(x), y)[0]
    assert not torch.allclose(among_others, among_copies)


def test_discriminator_of_equal_items_has_finite_gradients():
    family = build()
    x = torch.full((8, 1, 8, 8), 0.5, requires_grad=True)
    family.discriminator(x, torch.eye(3)[[0] * 8]).sum().backward()
    assert x.grad.isfinite().all()


# Losses, against the formulas as the papers have them.


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([-3.0, -0.5, 0.2, 2.0]), torch.tensor([1.5, -2.0, 0.7, 0.0])


def test_non_saturating_equals_goodfellow():
    real, fake = logits()
    d = torch.sigmoid
    loss = losses.LOSSES["non-saturating"]
    wanted = -(torch.log(d(real)) + torch.log(1 - d(fake))).mean()
    assert torch.allclose(loss.discriminator(real, fake), wanted)
    assert torch.allclose(loss.generator(fake), -torch.log(d(fake)).mean())


def test_hinge_equals_miyato():
    real, fake = logits()
    loss = losses.LOSSES["hinge"]
    wanted = -(torch.minimum(torch.zeros(4), real - 1).mean() + torch.minimum(torch.zeros(4), -fake - 1).mean())
    assert torch.allclose(loss.discriminator(real, fake), wanted)
    assert torch.allclose(loss.generator(fake), -fake.mean())


def test_wasserstein_equals_arjovsky():
    real, fake = logits()
    loss = losses.LOSSES["wgan-gp"]
    assert torch.allclose(-loss.discriminator(real, fake), real.mean() - fake.mean())
    assert torch.allclose(loss.generator(fake), -fake.mean())


def quadratic(x: torch.Tensor) -> torch.Tensor:
    """A critic whose gradient is x itself."""
    return 0.5 * x.flatten(1).square().sum(1)


def test_r1_penalty_equals_the_squared_norm_of_the_gradient():
    x = torch.randn(5, 2, 3, 3)
    assert torch.allclose(losses.r1_penalty(quadratic, x), x.flatten(1).square().sum(1).mean())


def test_r1_penalty_teaches_the_critic():
    weight = torch.tensor([2.0], requires_grad=True)
    losses.r1_penalty(lambda x: weight * x.flatten(1).sum(1), torch.randn(5, 1, 2, 2)).backward()
    assert weight.grad.item() == pytest.approx(2 * 2.0 * 4)  # of 4 w^2


def test_gradient_penalty_equals_gulrajani():
    real, fake = torch.randn(5, 2, 3, 3), torch.randn(5, 2, 3, 3)
    torch.manual_seed(3)
    penalty = losses.gradient_penalty(quadratic, real, fake)
    torch.manual_seed(3)
    place = torch.rand(5, 1, 1, 1)
    between = place * fake + (1 - place) * real
    assert torch.allclose(penalty, (between.flatten(1).norm(dim=1) - 1).square().mean(), atol=1e-5)


def test_gradient_penalty_at_a_gradient_of_zero_is_finite():
    weight = torch.zeros(1, requires_grad=True)
    zero = torch.zeros(3, 1, 2, 2)
    losses.gradient_penalty(lambda x: weight * x.flatten(1).sum(1), zero, zero).backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("loss", ["non-saturating", "hinge", "wgan-gp"])
@pytest.mark.parametrize("network", NETWORKS)
def test_training_step_each_phase_teaches_its_side_alone(network, loss):
    family = build(network=network, loss=loss).train()
    for phase, other in (("discriminator", "generator"), ("generator", "discriminator")):
        family.zero_grad(set_to_none=True)
        result, _ = family.training_step(a_batch(), phase, 8, None)
        result.total.backward()
        of = {side: [p.grad for p in getattr(family, side).parameters()] for side in (phase, other)}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in of[phase])
        assert all(gradient is None for gradient in of[other])


def test_training_step_total_is_the_loss_and_its_penalty():
    family = build(r1=3.0, r1_interval=4).train()
    for step, penalised in ((4, True), (5, False), (8, True)):
        result, _ = family.training_step(a_batch(), "discriminator", step, None)
        assert ("penalty" in result.parts) == penalised
        torch.manual_seed(5)
        result, _ = family.training_step(a_batch(), "discriminator", step, None)
        torch.manual_seed(5)
        plain, _ = build(r1=0.0).train().training_step(a_batch(), "discriminator", step, None)
        assert torch.allclose(result.total, plain.total + result.parts.get("penalty", 0), atol=1e-5)


def test_penalty_of_r1_is_weighted_by_half_gamma_and_the_interval():
    family = build(r1=3.0, r1_interval=4, diffaugment=(), spectral_norm=False)
    x, y = torch.rand(6, 1, 8, 8), torch.eye(3)[[0, 1, 2] * 2]
    wanted = 3.0 / 2 * 4 * losses.r1_penalty(lambda x: family.discriminator(x, y), x)
    assert torch.allclose(family.penalty(x, x, y, 4), wanted)


@pytest.mark.parametrize(("n", "given", "expected"), [(9_999, None, 1.0), (10_000, None, 0.1), (100, 0.0, 0.0)])
def test_r1_left_out_follows_the_size_of_the_set(n, given, expected):
    assert build(n=n, r1=given).r1 == expected


def test_phases_follow_discriminator_steps():
    assert build(discriminator_steps=2).phases(0) == ("discriminator", "discriminator", "generator")


def test_optimizers_have_two_rates():
    optimizers = build(learning_rate=1e-3, discriminator_learning_rate=4e-3).optimizers()
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    assert rates == pytest.approx({"discriminator": 4e-3, "generator": 1e-3})


# Augmentation.


@pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",), ("color", "translation", "cutout")])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_diffaugment_varies_each_item_and_lets_gradients_pass(policy, channels):
    torch.manual_seed(0)
    x = torch.rand(1, channels, 16, 12).expand(20, -1, -1, -1).clone().requires_grad_()
    varied = augment.diffaugment(x, policy, torch.ones(()))
    assert varied.shape == x.shape
    assert len({item.numpy().tobytes() for item in varied.detach()}) > 10
    varied.square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_diffaugment_color_leaves_alpha_and_what_is_transparent():
    torch.manual_seed(0)
    x = torch.rand(30, 4, 8, 8)
    x[:, 3, :4] = 0
    x = premultiplied(x)
    varied = augment.diffaugment(x, ("color",), torch.ones(()))
    assert torch.equal(varied[:, 3], x[:, 3])
    assert (varied[:, :3, :4] == 0).all()
    assert (varied[:, :3, 4:] != x[:, :3, 4:]).any()


def test_diffaugment_translation_moves_by_up_to_an_eighth():
    torch.manual_seed(0)
    x = torch.zeros(500, 1, 16, 16)
    x[:, 0, 8, 8] = 1
    places = augment.diffaugment(x, ("translation",), torch.ones(())).nonzero()
    assert len(places) == 500
    for column in (2, 3):
        assert sorted(set((places[:, column] - 8).tolist())) == [-2, -1, 0, 1, 2]


def test_diffaugment_cutout_takes_up_to_a_quarter():
    torch.manual_seed(0)
    left = augment.diffaugment(torch.ones(500, 1, 16, 16), ("cutout",), torch.ones(())).mean((1, 2, 3))
    assert left.min() == 0.75
    assert 0.8 < left.mean() < 0.9


@pytest.mark.parametrize(
    ("n", "given", "expected"),
    [
        (9_999, None, ("color", "translation", "cutout")),
        (10_000, None, ()),
        (100, (), ()),
        (10_000, ("cutout",), ("cutout",)),
    ],
)
def test_diffaugment_left_out_is_for_small_sets(n, given, expected):
    assert build(n=n, diffaugment=given).policy == expected


# Alpha.


def test_premultiplied_hides_the_colour_of_what_is_transparent():
    x = torch.rand(2, 4, 5, 5)
    other = x.clone()
    x[:, 3], other[:, 3] = 0, 0
    other[:, :3] = 1 - x[:, :3]
    assert torch.equal(premultiplied(x), premultiplied(other))
    assert torch.equal(premultiplied(x[:, :3]), x[:, :3])


# Samplers.


def test_tasks_first_is_generate():
    assert GAN.tasks == ("generate", "interpolate")


def test_sampler_unknown_task_raises():
    with pytest.raises(UnknownName, match="Did you mean 'interpolate'"):
        build().sampler("interpolat")


@pytest.mark.parametrize("network", NETWORKS)
def test_build_without_labels_has_no_label_control(network):
    family = build(labels=(), frequencies=(), network=network)
    for task in family.tasks:
        assert "label" not in [control.name for control in family.controls(task)]
        content = family.sampler(task)(torch.arange(2), controls_of(family, task, 2))
        assert content.shape == (2, 8, 8, 1)
    result, _ = family.train().training_step(a_batch(labels=()), "discriminator", 0, None)
    assert result.total.isfinite()


@pytest.mark.parametrize("network", NETWORKS)
def test_generate_noise_is_that_of_the_seed(network):
    family = build(network=network)
    seeds = torch.arange(5)
    z = normal(seeds, 6, Stream.LATENT)
    wanted = family.generator(z, torch.eye(3)[[1] * 5])
    made = generate(family, seeds, label=1, truncation=1.0)
    assert torch.equal(made, (wanted * 255).round().to(torch.uint8).permute(0, 2, 3, 1))


@pytest.mark.parametrize("network", NETWORKS)
def test_generate_truncation_zero_gives_one_image_for_each_label(network):
    family = build(network=network)
    content = generate(family, torch.arange(9), truncation=0.0, label=1)
    assert (content == content[0]).all()
    assert (generate(family, torch.arange(9), label=1) != content).any()


def test_generate_label_minus_one_follows_the_training_frequencies():
    family = build(frequencies=(0.0, 1.0, 0.0))
    free, fixed = (generate(family, torch.arange(50), label=label) for label in (-1, 1))
    assert torch.equal(free, fixed)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("label", [-1, 1])
def test_interpolate_ends_are_what_generate_makes(network, label):
    family = build(network=network)
    seed, seed_b = torch.arange(20), torch.arange(20) + 1000
    values = {"label": label, "truncation": 0.8}
    interpolate = family.sampler("interpolate")
    for t, wanted in ((0.0, seed), (1.0, seed_b)):
        controls = {**controls_of(family, "interpolate", 20, t=t, **values), "seed_b": seed_b}
        assert torch.equal(interpolate(seed, controls), generate(family, wanted, **values))


def test_style_mixing_takes_each_layer_from_the_seed_that_is_asked_for():
    family = build((16, 16, 3), network="style")
    layers = family.generator.layers
    seed, seed_b = torch.arange(4), torch.arange(4) + 100
    values = {"label": 1}

    def mixed(layer: int) -> torch.Tensor:
        controls = {**controls_of(family, "generate", 4, mix_layer=layer, **values), "seed_b": seed_b}
        return family.sampler("generate")(seed, controls)

    assert torch.equal(mixed(layers), generate(family, seed, **values, mix_layer=layers))
    assert torch.equal(mixed(0), generate(family, seed_b, **values, mix_layer=layers))
    styles = family.generator.styles(normal(seed, 6, Stream.LATENT), torch.eye(3)[[1] * 4])
    styles_b = family.generator.styles(normal(seed_b, 6, Stream.LATENT), torch.eye(3)[[1] * 4])
    by_hand = torch.stack([styles] * 2 + [styles_b] * (layers - 2), 1)
    wanted = (family.generator.synthesise(by_hand) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(mixed(2), wanted)


def test_style_mean_follows_the_styles_while_training_alone():
    family = build(network="style")
    z, y = torch.randn(64, 6), torch.eye(3)[[0] * 64]
    family.generator(z, y)
    assert (family.generator.mean_style == 0).all()
    family.generator.train()
    for _ in range(600):
        family.generator(z, y)
    assert torch.allclose(family.generator.mean_style[0], family.generator.styles(z, y).mean(0), atol=0.05)
    assert (family.generator.mean_style[1:] == 0).all()  # no image of the other labels was made


def test_style_truncation_zero_keeps_the_labels_apart():
    family = build(network="style")
    family.generator.mean_style.normal_()
    images = [generate(family, torch.arange(2), truncation=0.0, label=label) for label in range(3)]
    assert all((image[0] == image[1]).all() for image in images)
    assert len({image.numpy().tobytes() for image in images}) == 3


@pytest.mark.parametrize("shape", [(7, 8, 1), (8, 129, 1), (200, 200, 3)])
def test_build_size_out_of_range_raises(shape):
    with pytest.raises(InvalidData, match="8 to 128"):
        build(shape)


def test_build_one_image_raises():
    with pytest.raises(InvalidData, match="There is 1 image to train on; a GAN compares images and needs at least 2"):
        build(n=1)


# Watching.


def test_filters_are_the_same_in_every_process():
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    assert Filters(1)(x).sum().item() == pytest.approx(19.140663, abs=1e-4)
    assert list(Filters(1).state_dict()) == []


def test_watch_keeps_the_first_images_and_their_labels():
    watch = Watch(1, 10)
    x = torch.rand(14, 1, 8, 8)
    for start in (0, 7):
        watch.observe(x[start : start + 7], torch.arange(start, start + 7), start // 7)
    assert watch.count == 10
    assert torch.equal(watch.labels, torch.arange(10))
    assert torch.allclose(watch.features, watch.filters(x[:10]))


@pytest.fixture
def watched() -> tuple[Watch, torch.Tensor, torch.Tensor]:
    """A watch that has seen bright and dark squares, and 500 more of them with their labels."""
    torch.manual_seed(0)
    labels = torch.arange(1000) % 2
    x = torch.rand(1000, 1, 8, 8) * 0.3 + labels.view(-1, 1, 1, 1) * 0.6
    watch = Watch(1, 500)
    watch.observe(x[:500], labels[:500], 0)
    return watch, x[500:], labels[500:]


def test_figures_of_real_images_are_those_of_no_collapse(watched):
    watch, x, _ = watched
    figures = watch.figures(watch.filters(x), 2)
    noisy = watch.figures(watch.filters(x + 0.1 * torch.randn_like(x)), 2)
    assert figures["frechet"] < 0.5 * noisy["frechet"]
    assert figures["diversity"] == pytest.approx(1, abs=0.05)
    assert figures["labels_hit"] == 1


def test_figures_of_one_image_again_and_again_are_those_of_a_collapse(watched):
    watch, x, _ = watched
    figures = watch.figures(watch.filters(x[:1].expand_as(x)), 2)
    assert figures["diversity"] == pytest.approx(0, abs=1e-6)
    assert figures["labels_hit"] == 0.5
    assert figures["frechet"] > 5 * watch.figures(watch.filters(x), 2)["frechet"]


def test_figures_of_swapped_labels_hit_none(watched):
    watch, x, labels = watched
    swapped = torch.cat([x[labels == 1], x[labels == 0]])
    order = torch.stack([torch.arange(250), torch.arange(250, 500)], 1).flatten()
    assert watch.figures(watch.filters(swapped[order]), 2)["labels_hit"] == 0


def test_diffaugment_varies_the_share_that_is_asked_for():
    torch.manual_seed(0)
    x = torch.rand(1000, 1, 8, 8)
    for share in (0.0, 0.3):
        varied = augment.diffaugment(x, ("color",), torch.tensor(share))
        assert (varied != x).flatten(1).any(1).float().mean() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(("positive", "grows"), [(1.0, True), (0.5, False)])
def test_share_follows_how_sure_the_discriminator_is(positive, grows):
    family = build()
    family.share.fill_(0.5)
    family.adapt(torch.where(torch.arange(10) < 10 * positive, 1.0, -1.0))
    assert (family.share > 0.5) == grows
    for _ in range(20_000):
        family.adapt(torch.where(torch.arange(10) < 10 * positive, 1.0, -1.0))
    assert family.share == float(grows)


def test_share_that_is_given_stays():
    family = build(diffaugment_share=0.25).train()
    family.training_step(a_batch(), "discriminator", 0, None)
    assert family.share == 0.25


@pytest.mark.parametrize(("given", "policy"), [("color, cutout", ("color", "cutout")), ("", ())])
def test_diffaugment_as_text_is_split_at_commas(given, policy):
    assert build(diffaugment=given).policy == policy


def test_filters_are_as_exact_in_mixed_precision():
    x = torch.rand(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Filters(3)(x)
    assert torch.equal(mixed, Filters(3)(x))
