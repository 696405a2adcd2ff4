"""GANs given what is bad, little or odd: an error of ours, a counted warning, or a sound training; never a crash."""

import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image as pil

import aigc_sdk as sdk
from aigc_gan.family import GAN, scarce
from aigc_gan.watch import Watch, collapse
from aigc_image.data import load_data
from aigc_sdk.data.dataset import DataSpec
from aigc_sdk.errors import InvalidConfig, InvalidData, TrainingFailed, UnknownName
from aigc_sdk.request import build_request
from aigc_sdk.training import Losses, plan
from aigc_sdk.training.eager import weights_sha256

pytestmark = pytest.mark.usefixtures("no_export")

NETWORKS = ["dcgan", "resnet", "style", "mlp"]
SMALL = {"latent": 4, "width": 4, "batch_size": 4, "steps": 2, "warmup_steps": 0, "workers": 0, "precision": "float32"}
ALL_TRAIN = {"validation_fraction": 0, "test_fraction": 0}


def noise(n, height=8, width=8, channels=1):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), np.uint8)


def small(options):
    options = {**SMALL, **options}
    return {name: value for name, value in options.items() if (name, options.get("network")) != ("width", "mlp")}


def train(data, out, seed=1, resume=False, init=None, **options):
    return sdk.train("gan", data, out=out / "run", seed=seed, resume=resume, init=init, **small(options))


def validations(run):
    return [line["validation"] for line in run.metrics if "validation" in line]


def assert_all_finite(run):
    figures = [value for line in run.metrics for value in {**line, **line.get("validation", {})}.values()]
    assert all(math.isfinite(value) for value in figures if not isinstance(value, dict))
    assert validations(run)


def warnings(caplog):
    """Return what was warned of, but that trainings as short as these end too early and hold nothing out."""
    words = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    usual = ("The training ends too early", "validation_fraction is", "test_fraction is")
    return [each for each in words if not each.startswith(usual)]


# Few images.


def test_train_one_image_raises_and_writes_nothing(tmp_path):
    with pytest.raises(InvalidData, match="only one image; give at least two"):
        train(noise(1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_train_split_that_leaves_one_image_raises_and_says_what_to_do(tmp_path):
    images = noise(40)
    fraction = float(np.sort(load_data(images).digests)[-1] / 2**64)  # all but one come before it
    with pytest.raises(InvalidData, match=r"There is 1 image to train on.*smaller validation_fraction"):
        train(images, tmp_path, validation_fraction=fraction, test_fraction=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_train_two_or_three_images_trains(tmp_path, network, n):
    run = train(noise(n), tmp_path, network=network, batch_size=500, **ALL_TRAIN)
    assert run.metrics[-1]["step"] == 2
    assert_all_finite(run)


def test_train_batch_of_one_is_refused(tmp_path):
    with pytest.raises(InvalidConfig, match=r"batch_size is 1: .*greater than or equal to 2"):
        train(noise(9), tmp_path, batch_size=1)
    assert list(tmp_path.iterdir()) == []


def test_train_every_batch_is_full(tmp_path, monkeypatch):
    seen = []
    training_step = GAN.training_step
    monkeypatch.setattr(
        GAN, "training_step", lambda *given: seen.append(len(given[1]["images"])) or training_step(*given)
    )
    run = train(noise(7), tmp_path, steps=3, **ALL_TRAIN)
    assert seen == [4] * 6  # a last batch of 3, whose spread is another one, there is not
    assert run.metrics[-1]["epoch"] == 3


# Images that are alike.


def test_train_images_all_the_same_raises_and_counts_them(tmp_path):
    with pytest.raises(InvalidData, match=r"all the same.* 40 images read; 39 are exact copies"):
        train(np.repeat(noise(1), 40, 0), tmp_path)
    assert list(tmp_path.iterdir()) == []


def alike_but_one():
    """Forty images, of which one differs, and a validation fraction that takes this one out of the training part."""
    images = np.repeat(noise(1), 40, 0)
    for value in range(256):
        images[7] = value
        places = load_data(images).digests / 2**64
        if places[7] < places[0]:
            return images, float(places[7] + places[0]) / 2
    raise AssertionError("no shade of grey comes before the others")


@pytest.mark.parametrize("network", NETWORKS)
def test_train_training_part_all_the_same_warns_once_and_goes_on(tmp_path, caplog, network):
    images, fraction = alike_but_one()
    run = train(images, tmp_path, network=network, epochs=3, steps=None, validation_fraction=fraction, test_fraction=0)
    same = [words for words in warnings(caplog) if "are the same" in words]
    assert len(same) == 1 and "All 36 real images" in same[0]  # of 39, which make nine batches of 4
    assert len(validations(run)) == 3 and "diversity" not in validations(run)[0]
    assert not any("much alike" in words for words in warnings(caplog))
    assert_all_finite(run)


def test_train_rgba_all_transparent_warns_that_all_are_the_same(tmp_path, caplog):
    images = noise(12, channels=4)
    images[..., 3] = 0
    assert_all_finite(train(images, tmp_path, **ALL_TRAIN, epochs=1))
    assert any("All 8 real images" in words for words in warnings(caplog))  # of two batches


@pytest.mark.parametrize("network", NETWORKS)
def test_train_all_black_but_one_trains(tmp_path, caplog, network):
    images = np.zeros((8, 8, 8, 1), np.uint8)
    images[3] = 200
    assert_all_finite(train(images, tmp_path, network=network, **ALL_TRAIN))
    assert not any("are the same," in words for words in warnings(caplog))


def test_is_uniform_one_other_image_is_seen():
    x = torch.rand(1, 3, 16, 16).expand(50, -1, -1, -1).clone()
    for last, expected in ((x[0, 0, 0, 0], True), (1 - x[0, 0, 0, 0], False)):
        x[-1, 0, 0, 0] = last
        watch = Watch(3, 50)
        for start in range(0, 50, 7):
            watch.observe(x[start : start + 7], None, start // 7)
        assert watch.is_uniform == expected


def test_figures_real_images_that_differ_by_rounding_alone_have_no_diversity():
    torch.manual_seed(0)
    watch = Watch(1, 64)
    watch.observe(torch.rand(1, 1, 8, 8).expand(64, -1, -1, -1), None, 0)
    watch.features += 1e-7 * torch.randn_like(watch.features)
    figures = watch.figures(watch.filters(torch.rand(64, 1, 8, 8)), 0)
    assert watch.is_uniform and "diversity" not in figures and math.isfinite(figures["frechet"])


# Labels.


@pytest.mark.parametrize("labels", [np.arange(12), np.arange(12) // 6], ids=["each its own", "constant"])
def test_train_labels_without_any_spread_give_finite_figures(tmp_path, caplog, labels):
    images = noise(12)[labels]
    run = train((images, labels), tmp_path, epochs=1, **ALL_TRAIN)
    assert_all_finite(run)
    assert "diversity" not in validations(run)[0] and 0 <= validations(run)[0]["labels_hit"] <= 1
    assert not any("much alike" in words for words in warnings(caplog))


def test_figures_labels_without_any_spread_are_told_apart():
    watch = Watch(1, 20)
    labels = torch.arange(20) % 2
    x = torch.rand(2, 1, 8, 8)[labels]
    watch.observe(x, labels, 0)
    assert watch.figures(watch.filters(x), 2)["labels_hit"] == 1


def test_train_class_of_one_image_warns_with_its_name(tmp_path, caplog):
    labels = np.array(["cat"] * 11 + ["dog"])
    run = train((noise(12), labels), tmp_path, discriminator_steps=2, **ALL_TRAIN)
    assert_all_finite(run)
    scarce_labels = [words for words in warnings(caplog) if "single image" in words]
    assert len(scarce_labels) == 1 and "1 of 2 with a single image (dog)" in scarce_labels[0]


@pytest.mark.parametrize("balance", [False, True])
def test_train_class_without_a_training_image_warns_with_its_name(tmp_path, caplog, balance):
    images = noise(40)
    split = load_data(images).split(0.2, 0.2)
    labels = np.full(40, "cat")
    labels[split["validation"]] = "dog"
    options = {"balance_classes": balance, "validation_fraction": 0.2, "test_fraction": 0.2}
    run = train((images, labels), tmp_path, epochs=1, steps=None, **options)
    assert any("1 of 2 with no image to train on (dog)" in words for words in warnings(caplog))
    assert run.record.label_frequencies == (1.0, 0.0)
    assert_all_finite(run)


def test_scarce_counts_all_and_names_some():
    counts = [0] * 7 + [1, 92]
    names = (*"abcdefg", "one\x1b", "many")
    words = scarce(DataSpec((8, 8, 1), names, tuple(count / 93 for count in counts), 93))
    assert "7 of 9 with no image to train on (a, b, c, d, e, ...) and 1 of 9 with a single image (one\\x1b):" in words
    assert scarce(DataSpec((8, 8, 1), ("a", "b"), (0.5, 0.5), 4)) == ""
    assert scarce(DataSpec((8, 8, 1), (), (), 4)) == ""


def test_generate_label_that_the_model_lacks_raises(tmp_path):
    run = train((noise(12), np.array(["cat", "dog"] * 6)), tmp_path)
    card = run.exportable("generate").eager.card
    options = {"seed": 0, "seeds": None, "batch_size": None, "deadline_s": None}
    with pytest.raises(UnknownName, match="Did you mean 'dog'"):
        build_request(card, 1, controls={"label": "dgo"}, **options)
    with pytest.raises(sdk.errors.AigcError, match="label"):
        build_request(card, 1, controls={"label": 2}, **options)


def test_train_balance_classes_without_labels_raises(tmp_path):
    with pytest.raises(InvalidConfig, match="balance_classes needs labels"):
        train(noise(12), tmp_path, balance_classes=True)


# Sizes.


@pytest.mark.parametrize("loss", ["hinge", "wgan-gp"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (128, 9), (31, 57)])
def test_train_sides_that_are_no_multiple_of_the_stride_trains(tmp_path, size, network, loss):
    run = train(noise(4, *size, 3), tmp_path, network=network, loss=loss, steps=1, batch_size=2, **ALL_TRAIN)
    with pil.open(next((run.folder / "samples").iterdir())) as grid:
        assert grid.height > 7 * size[0] and grid.width > 7 * size[1]
    assert run.exportable("generate").eager.card.output.shape == (*size, 3)
    assert_all_finite(run)


@pytest.mark.parametrize(("fit", "black_rows", "black_columns"), [("crop", 0, 0), ("pad", 8, 8), ("stretch", 0, 8)])
def test_train_image_of_another_aspect_gets_there_as_the_options_say(
    tmp_path, monkeypatch, fit, black_rows, black_columns
):
    """Images twice as wide as high, white in the middle and black at both ends."""
    (tmp_path / "images").mkdir()
    for i in range(6):
        image = np.zeros((16, 32), np.uint8)
        image[:, 8:24] = 250 - i
        pil.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    seen = []
    observe = Watch.observe
    monkeypatch.setattr(Watch, "observe", lambda self, x, *others: seen.append(x) or observe(self, x, *others))
    train(tmp_path / "images", tmp_path, image_size=16, image_fit=fit, **ALL_TRAIN)
    black = seen[0][:, 0] < 0.3
    assert seen[0].shape == (4, 1, 16, 16)
    assert (black.all(2).sum(1) == black_rows).all() and (black.all(1).sum(1) == black_columns).all()


# Losses that are no number, and what else ends a training.


@pytest.mark.parametrize("loss", ["non-saturating", "hinge", "wgan-gp"])
def test_train_loss_that_explodes_raises_and_names_the_step(tmp_path, loss):
    with pytest.raises(TrainingFailed, match=r"at step [1-9]\d* .*smaller learning_rate"):
        train(noise(12), tmp_path, loss=loss, learning_rate=1e18, steps=20)
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("network", NETWORKS)
def test_train_generator_that_explodes_in_the_last_step_raises(tmp_path, network):
    """The loss came before the step, so that it does not tell."""
    options = {"learning_rate": 1e25, "discriminator_learning_rate": 1e-2, "steps": 1, "network": network}
    with pytest.raises(TrainingFailed, match=r"generator makes is not a number any more at step 1\."):
        train(noise(12), tmp_path, **options)


def test_train_early_stop_without_validation_part_raises(tmp_path):
    with pytest.raises(InvalidConfig, match="early_stop_epochs needs data to validate on"):
        train(noise(12), tmp_path, early_stop_epochs=1, **ALL_TRAIN)


def test_train_early_stop_follows_the_frechet_distance(tmp_path, monkeypatch):
    distances = iter([3.0, 2.0, 2.5, 2.1, 1.0])
    monkeypatch.setattr("aigc_gan.watch.frechet_distance", lambda *_: next(distances))
    run = train(noise(40), tmp_path, early_stop_epochs=2, epochs=9, steps=None)
    assert [figures["frechet"] for figures in validations(run)] == [3.0, 2.0, 2.5, 2.1]


# Warnings.


def test_validation_what_stays_is_told_less_and_less_often(caplog):
    family = GAN(GAN.Config(width=4))
    family.build(DataSpec((8, 8, 1), (), (), 4))
    for times in range(1, 20):
        family.tell({"alike": f"alike {times}"} | ({"lost": f"lost {times}"} if times in (3, 9) else {}), times)
    told = [words.split(": ")[1] for words in warnings(caplog)]
    assert told == ["alike 1", "alike 2", "lost 3", "alike 4", "alike 8", "lost 9", "alike 16"]
    assert "(validation 8 in a row)" in caplog.text


SOUND = {
    "frechet": 1.5,
    "diversity": 0.9,
    "labels_hit": 0.8,
    "labels_hit_real": 0.9,
    "accuracy_real": 0.7,
    "accuracy_generated": 0.8,
}


@pytest.mark.parametrize(
    ("figures", "step", "expected"),
    [
        ({}, 2000, []),
        ({"diversity": 0.1}, 50, ["alike"]),
        ({"diversity": 0.1}, 20, []),
        ({"diversity": 0.6}, 50, []),
        ({"diversity": 0.6}, 300, ["alike"]),
        ({"accuracy_generated": 0.05}, 300, ["fooled"]),
        ({"accuracy_generated": 0.05}, 200, []),
        ({"accuracy_generated": 0.3}, 300, []),
        ({"accuracy_generated": 0.3, "frechet": 2.5}, 300, ["fooled"]),
        ({"accuracy_real": 0.05, "accuracy_generated": 0.95}, 300, ["by heart"]),
        ({"accuracy_real": 0.5, "accuracy_generated": 0.5}, 300, []),
        ({"frechet": 3.5}, 300, ["worse"]),
        ({"frechet": 3.5}, 200, []),
        ({"labels_hit": 0.1}, 2000, ["labels"]),
        ({"labels_hit": 0.1}, 1000, []),
        ({"labels_hit": 0.1, "labels_hit_real": 0.2}, 2000, []),
    ],
)
def test_collapse_is_told_by_its_kind(figures, step, expected):
    assert list(collapse(SOUND | figures, step, 1.0)) == expected


def test_collapse_without_logits_or_labels_goes_by_diversity():
    assert list(collapse({"frechet": 1.0, "diversity": 0.9}, 5000, 1.0)) == []
    assert list(collapse({"frechet": 1.0, "diversity": 0.1}, 5000, 1.0)) == ["alike"]


class Constant(GAN):
    """A GAN whose generator gets no noise."""

    def build(self, data):
        super().build(data)
        self.generator.register_forward_pre_hook(lambda _, inputs: (torch.zeros_like(inputs[0]), *inputs[1:]))


class Frozen(GAN):
    """A GAN whose discriminator stops learning after 100 steps."""

    def training_step(self, batch, phase, step, carry):
        losses, carry = super().training_step(batch, phase, step, carry)
        stopped = phase == "discriminator" and step >= 100
        return (Losses(losses.total * 0) if stopped else losses), carry


@pytest.mark.parametrize(("family", "told"), [(GAN, None), (Constant, "much alike"), (Frozen, "for real")])
def test_train_planted_collapse_is_told_and_a_sound_one_not(tmp_path, caplog, monkeypatch, digits_8x8, family, told):
    monkeypatch.setattr("aigc_gan.family.GAN", family)
    train(digits_8x8, tmp_path, batch_size=32, width=8, latent=16, warmup_steps=50, steps=450, validation_fraction=0.1)
    if told is None:
        assert warnings(caplog) == []
    else:
        assert any(told in words for words in warnings(caplog))


# Other weights, other steps, and no training at all.


@pytest.mark.parametrize(
    ("labels", "size"), [(np.arange(30) % 3, 8), (np.arange(30) % 7, 8), (None, 8), (np.arange(30) % 3, 16)]
)
def test_train_init_from_a_run_of_other_data_compares_with_its_own(tmp_path, labels, size):
    (tmp_path / "before").mkdir()
    before = train((255 - noise(40), np.arange(40) % 3), tmp_path / "before", epochs=1, steps=None)
    images = noise(30, size, size) // 2
    run = train(images if labels is None else (images, labels), tmp_path, init=before, diffaugment_share=0.5)
    family = run.family()
    assert run.record.init["copied"] > 0
    assert family.share == 0.5  # the other run's was near 0
    assert family.watch.count == 8
    kept = Watch(1, 30)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    distances = torch.cdist(family.watch.features[:8], kept.filters(x))
    assert distances.min(1).values.max() < 0.01
    assert_all_finite(run)


def test_train_steps_of_the_discriminator_keep_each_image_once(tmp_path):
    watch = train(noise(40), tmp_path, discriminator_steps=5, steps=10, **ALL_TRAIN).family().watch
    assert watch.count == 40
    assert len(np.unique(watch.features.numpy().round(4), axis=0)) == 40


def test_train_resumed_after_its_end_changes_nothing(tmp_path):
    run = train(noise(12), tmp_path)
    files = {path.name: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    again = train(noise(12), tmp_path, resume=True)
    assert weights_sha256(again.family()) == weights_sha256(run.family())
    assert files == {path.name: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}


def test_plan_two_images_says_what_a_training_takes_and_bad_ones_raise():
    found = plan("gan", noise(2), config={**SMALL, **ALL_TRAIN})
    assert (found.steps, found.data["split"]["train"]) == (2, 2)
    with pytest.raises(InvalidData, match="7 x 7 pixels; a GAN takes 8 to 128"):
        plan("gan", noise(4, 7, 7), config={**SMALL, **ALL_TRAIN})
    with pytest.raises(InvalidConfig, match="batch_size is 1"):
        plan("gan", noise(4), config={**SMALL, "batch_size": 1})


def test_plan_does_not_speak_of_a_collapse_after_some_steps(caplog):
    plan("gan", noise(20), config={**SMALL, "network": "style", "warmup_steps": 200})
    assert warnings(caplog) == []
