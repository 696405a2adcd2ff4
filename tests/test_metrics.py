"""The metrics, on pixels as features: against independent implementations, and on planted faults."""

import numpy as np
import pytest

from aigc_metrics.copying import Copying
from aigc_metrics.frechet import Frechet
from aigc_metrics.manifold import Precision, Recall, covered, radii
from aigc_sdk.evaluation.gaussians import frechet_distance, moments
from aigc_sdk.evaluation.neighbours import nearest, smallest
from aigc_sdk.evaluator import Samples


@pytest.fixture(scope="module")
def digits(digits_8x8):
    """Three parts of scikit-learn's digits in random order, (real, fake, train), float32 (n, 64), and fake's labels."""
    images, labels = digits_8x8
    order = np.random.default_rng(0).permutation(len(images))
    x, y = images[order].reshape(-1, 64).astype(np.float32) / 16, labels[order]
    return x[:600], x[600:1200], x[1200:], y[600:1200]


def noisy(x, sigma, seed=1):
    return (x + np.random.default_rng(seed).normal(0, sigma, x.shape)).astype(np.float32)


def blurred(x):
    """Each pixel the mean of the 3 x 3 around it."""
    padded = np.pad(x.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    return (sum(padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9).reshape(-1, 64)


def measured(metric, fake, digits):
    real, _, train, _ = digits
    return metric().measure(Samples(fake, real, train), 0)


def moved(metric, fake, digits):
    """Return +1 or -1 when a fault moves a score up or down by more than both intervals, else 0."""
    before, after = measured(metric, digits[1], digits), measured(metric, fake, digits)
    return int(after.interval[0] > before.interval[1]) - int(after.interval[1] < before.interval[0])


def test_frechet_agrees_with_the_root_of_the_product(digits):
    from scipy.linalg import sqrtm

    real, fake = (x.astype(np.float64) for x in digits[:2])
    fake = noisy(fake, 1).astype(np.float64)
    keep = real.std(0) > 0.1  # sqrtm wants no singular matrix
    real, fake = real[:, keep], fake[:, keep]
    a, b = np.cov(fake, rowvar=False), np.cov(real, rowvar=False)
    wanted = ((fake.mean(0) - real.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(moments(fake), moments(real)) == pytest.approx(wanted, rel=1e-6)


def test_frechet_of_gaussians_is_the_closed_form():
    mean, variance = np.array([3.0, 4.0]), np.diag([4.0, 9.0])
    assert frechet_distance((mean, variance), (np.zeros(2), np.eye(2))) == pytest.approx(25 + 1 + 4)
    assert frechet_distance((mean, variance), (mean, variance)) == pytest.approx(0, abs=1e-9)


def test_frechet_with_features_that_depend_on_one_another_is_stable(digits):
    real, fake = digits[0], digits[1]
    twice = [np.hstack([x, x, x[:, :3] * 0]) for x in (fake, real)]
    once = frechet_distance(moments(fake), moments(real))
    assert frechet_distance(*(moments(x) for x in twice)) == pytest.approx(2 * once, rel=1e-6)


def test_moments_with_counts_are_those_of_the_repeated_rows(digits):
    x, counts = digits[0][:50], np.random.default_rng(0).integers(0, 4, 50)
    mean, covariance = moments(x, counts)
    repeated = np.repeat(x, counts, axis=0).astype(np.float64)
    np.testing.assert_allclose(mean, repeated.mean(0))
    np.testing.assert_allclose(covariance, np.cov(repeated, rowvar=False), atol=1e-9)


def test_precision_and_recall_agree_with_sklearn(digits):
    from sklearn.neighbors import NearestNeighbors

    def share(items, manifold):
        reach = NearestNeighbors(n_neighbors=4).fit(manifold).kneighbors(manifold)[0][:, 3]
        ball = NearestNeighbors().fit(manifold)
        return np.mean([(d <= reach[i]).any() for d, i in zip(*ball.kneighbors(items, len(manifold)), strict=True)])

    real, fake = digits[0].astype(np.float64), noisy(digits[1], 1).astype(np.float64)
    assert measured(Precision, fake, digits).value == pytest.approx(share(fake, real), rel=1e-4)
    assert measured(Recall, fake, digits).value == pytest.approx(share(real, fake), rel=1e-4)
    assert 0.1 < share(fake, real) < 0.95


@pytest.mark.parametrize(("n", "k"), [(3, 3), (6, 5), (26, 5), (1000, 4), (700, 1)])
def test_smallest_agrees_with_sorting(n, k):
    values = np.random.default_rng(0).random((40, n))
    found, columns = smallest(values, k)
    assert np.array_equal(found, np.sort(values)[:, :k])
    assert np.array_equal(columns, np.argsort(values)[:, :k])


def test_nearest_in_many_chunks_agrees_with_all_at_once(digits, monkeypatch):
    wanted = nearest(digits[1], digits[0], 3)
    monkeypatch.setattr("aigc_sdk.evaluation.neighbours._CHUNK", 4000)
    found = nearest(digits[1], digits[0], 3)
    np.testing.assert_allclose(found[0], wanted[0])
    assert np.array_equal(found[1], wanted[1])


def test_radii_with_copies_do_not_count_the_item_itself():
    items = np.array([[0.0], [0.0], [1.0], [3.0], [7.0]])
    assert radii(items).tolist() == pytest.approx([9, 9, 4, 9, 49])
    assert covered(np.array([[8.0], [14.5]]), items, radii(items)).tolist() == [True, False]


def test_noise_raises_frechet_and_lowers_precision(digits):
    fake = noisy(digits[1], 2)
    assert (moved(Frechet, fake, digits), moved(Precision, fake, digits)) == (1, -1)


def test_blur_raises_frechet_and_lowers_recall(digits):
    fake = blurred(digits[1])
    assert (moved(Frechet, fake, digits), moved(Recall, fake, digits)) == (1, -1)


def test_missing_class_lowers_recall_and_leaves_precision(digits):
    fake = digits[1][digits[3] != 4]
    assert (moved(Recall, fake, digits), moved(Precision, fake, digits)) == (-1, 0)


def test_copies_among_the_items_raise_copying(digits):
    fake = digits[1].copy()
    fake[:60] = digits[2][:60]
    before, after = measured(Copying, digits[1], digits), measured(Copying, fake, digits)
    assert after.details["p"] < 0.001 < 0.05 < before.details["p"]
    assert after.value == pytest.approx(before.value + 0.1, abs=0.05)


@pytest.mark.parametrize("sigma", [0, 1])
def test_memorising_model_is_caught(digits, sigma):
    copies = np.random.default_rng(0).choice(digits[2], 600)
    found = measured(Copying, noisy(copies, sigma), digits)
    assert found.details["p"] < 0.001 and found.value > 0.8
    assert "copies" in found.verdict


@pytest.mark.parametrize("make", [lambda x: x, lambda x: noisy(x, 2), blurred], ids=["good", "noisy", "blurred"])
def test_honest_model_is_not_accused_however_poor(digits, make):
    found = measured(Copying, make(digits[1]), digits)
    assert found.details["p"] > 0.05
    assert found.interval[0] < 0.05 and "No sign" in found.verdict


def test_copying_without_copies_has_uniform_p(monkeypatch):
    monkeypatch.setattr("aigc_metrics.copying._SHUFFLES", 499)
    below = 0
    for seed in range(60):
        x = np.random.default_rng(seed).normal(size=(320, 4))
        found = Copying().measure(Samples(x[:100], x[100:150], x[150:]), seed)
        below += found.details["p"] <= 0.2
    assert 4 <= below <= 22  # 12 are expected, with a standard deviation of 3.1


def test_held_out_items_that_are_training_items_are_no_copies(digits):
    same = digits[2]
    found = Copying().measure(Samples(same[:300], same, same), 0)
    assert found.value < 0


def test_baseline_is_what_training_items_reach(digits):
    real, fake, train, _ = digits
    assert measured(Recall, fake, digits).baseline == Recall().measure(Samples(train, real), 0).value
    assert measured(Frechet, fake, digits).baseline == Frechet().measure(Samples(train, real), 0).value
    assert Precision().measure(Samples(fake, real), 0).baseline is None


@pytest.mark.parametrize("metric", [Frechet, Precision, Recall, Copying])
def test_metric_is_the_same_for_the_same_seed(digits, metric):
    assert measured(metric, digits[1], digits) == measured(metric, digits[1], digits)


def test_frechet_of_few_items_says_so(digits):
    assert "use more items" in Frechet().measure(Samples(digits[1][:50], digits[0]), 0).verdict
