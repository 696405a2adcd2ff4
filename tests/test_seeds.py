"""Seeds: Threefry's known answers, the published item seeds, and which seeds are accepted."""

import numpy as np
import pytest

from aigc_sdk.errors import InvalidRequest
from aigc_sdk.seeds import ITEM_STREAM, MAX_SEED, check_seed, check_seeds, draw_seed, item_seeds, shown, threefry

# Random123, tests/kat_vectors: threefry2x32 20.
KNOWN_ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]

# A published contract: embedders in other languages derive the same. Never change them.
ITEM_SEEDS = {
    0: [0, 4475892558347986, 7441587498454150, 3000035153316455],
    7: [7, 1128727371089977, 8352454184800371, 3784012270342785],
    2**53 - 1: [2**53 - 1, 4773350952027207, 2515765542579926, 5664634246229930],
}

BAD_SEEDS = [
    -1,
    2**53,
    10**30,
    10**5000,
    "7",
    b"7",
    1.5,
    7.0,
    True,
    False,
    np.True_,
    np.float64(7),
    None,
    [7],
    np.array([7]),
]


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN_ANSWERS)
def test_threefry_known_answer_matches(key, counter, answer):
    assert threefry(key, counter) == answer


def test_threefry_many_lanes_give_each_counter_its_own_answer():
    key, counters = (0xDEADBEEF, 0xFFFFFFFF), [(index * 0x9E3779B9 % 2**32, 2**32 - 1 - index) for index in range(100)]
    packed = [sum(counter[word] << 64 * lane for lane, counter in enumerate(counters)) for word in (0, 1)]
    together = threefry(key, tuple(packed), len(counters))
    for lane, counter in enumerate(counters):
        assert tuple(words >> 64 * lane & (2**64 - 1) for words in together) == threefry(key, counter)


@pytest.mark.parametrize("seed", ITEM_SEEDS)
def test_item_seeds_are_the_published_ones(seed):
    assert item_seeds(seed, 4).tolist() == ITEM_SEEDS[seed]
    assert item_seeds(seed, 4).dtype == np.int64


def test_item_seeds_follow_their_definition():
    seed = 2**40 + 12345
    word0, word1 = threefry((seed % 2**32, seed // 2**32), (9, ITEM_STREAM))
    assert item_seeds(seed, 10)[9] == (word0 << 32 | word1) >> 11


@pytest.mark.parametrize("n", [1, 2, 49])
def test_item_seeds_shorter_request_is_a_prefix(n):
    assert np.array_equal(item_seeds(123456789, n), item_seeds(123456789, 50)[:n])


def test_item_seeds_of_a_thousand_requests_are_distinct_and_accepted():
    seeds = np.concatenate([item_seeds(seed, 100) for seed in range(1000)])
    assert len(np.unique(seeds)) == 100_000
    assert seeds.min() >= 0 and seeds.max() <= MAX_SEED


@pytest.mark.parametrize("seed", BAD_SEEDS, ids=lambda seed: shown(seed)[:12])
def test_check_seed_bad_value_names_itself_and_the_range(seed):
    with pytest.raises(InvalidRequest, match=r"^seed is .* from 0 to 9007199254740991"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [0, 7, MAX_SEED, np.int64(7), np.uint8(7), np.uint64(MAX_SEED)])
def test_check_seed_good_value_becomes_an_int(seed):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize("seeds", [[], 7, "123", None, {1: 2}, [[1, 2]]])
def test_check_seeds_no_list_of_seeds_raises(seeds):
    with pytest.raises(InvalidRequest, match=r"^seeds.* from 0 to 9007199254740991"):
        check_seeds(seeds)


def test_check_seeds_bad_element_is_named():
    with pytest.raises(InvalidRequest, match=r"seeds\[2\] is -5 "):
        check_seeds([1, 2, -5])


def test_draw_seed_is_accepted_and_differs():
    drawn = {check_seed(draw_seed()) for _ in range(100)}
    assert len(drawn) == 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        ("a", "'a'"),
        (10**12, "1000000000000"),
        (2**64, "18446744073709551616"),
        ("a" * 99, "'" + "a" * 36 + "...'"),
    ],
)
def test_shown_is_short(value, text):
    assert shown(value) == text
    assert len(shown(10**5000)) < 80
