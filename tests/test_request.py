"""Requests: what callers may ask for, and what they are told when they may not."""

import itertools
import json
import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from aigc_sdk.card import Control, ModelCard, OutputSpec
from aigc_sdk.errors import AigcError, InvalidRequest, UnknownName
from aigc_sdk.request import Request, build_request
from aigc_sdk.seeds import item_seeds
from tiny_model import make_card, make_graph

LABEL = "give one of cat, dog, owl, its index from 0 to 2, or -1 to leave it to the seed"
GAIN = "give a number from 0 to 2"
SHIFT = "give a whole number from 0 to 9"
FLIP = "give True or False"
N = "give the number of items, a whole number from 1 to 4194304"
SEED = r"a seed is a whole number from 0 to 9007199254740991"
BATCH_SIZE = "give a whole number of at least 1"
DEADLINE = "give seconds above 0, or None for no deadline"

# (argument, value, where the message says it is, what the message says is allowed)
BAD = [
    *(("n", n, "n", N) for n in (0, -1, 1.5, 2.0, True, "3", [3], np.float64(3), 4194305, 10**12, 10**400, 10**5000)),
    *(("seed", seed, "seed", SEED) for seed in (-1, 2**53, "7", 1.5, True, [7], np.True_, 10**5000)),
    *(
        ("seeds", seeds, "seeds", "from 0 to 9007199254740991")
        for seeds in ([], "12", b"12", 7, {1, 2}, {1: 2}, np.array(7))
    ),
    *(("seeds", [0, seed], r"seeds\[1\]", SEED) for seed in (-1, 2**53, "7", 1.5, True, None)),
    ("seeds", np.array([1.0]), r"seeds\[0\]", SEED),
    ("seeds", [[1, 2]], r"seeds\[0\]", SEED),
    ("seeds", range(10**12), "seeds", "more than 4194304 values"),
    ("seeds", itertools.count(), "seeds", "more than 4194304 values"),
    *(("label", label, "label", LABEL) for label in (3, -2, 1.0, True, None, b"cat", {"cat"}, {"cat": 1}, np.True_)),
    ("label", "cta", "label", r"There is no choice .* 'cta'. Did you mean 'cat'\? There are: cat, dog, owl"),
    ("label", ["cat", "wol"], r"label\[1\]", r"'wol'. Did you mean 'owl'\? There are: cat, dog, owl"),
    ("label", [0, 1, 3], r"label\[2\]", LABEL),
    *(("label", raw, "label", LABEL) for raw in (b"\1", bytearray(b"\1"), memoryview(b"\1"))),
    ("seeds", bytearray(b"\1"), "seeds", "give a list of whole numbers"),
    ("label", [[0, 1]], r"label\[0\]", LABEL),
    ("label", np.zeros((2, 2), int), r"label\[0\]", LABEL),
    ("label", np.array([0.0, 1.0]), r"label\[0\]", LABEL),
    ("label", [], "label", "has 0 values for 1 items; give one value, or 1"),
    ("label", range(10**12), "label", "has more than 4194304 values"),
    *(
        ("gain", gain, "gain", GAIN)
        for gain in (2.1, -0.1, float("nan"), float("inf"), -float("inf"), True, "1", "bright", None, 10**400, 1j)
    ),
    *(
        ("gain", gain, r"gain\[1\]", GAIN)
        for gain in ([1, 3], [1, float("nan")], np.array([0, np.inf]), [1, True], [1, "1"])
    ),
    *(("shift", shift, "shift", SHIFT) for shift in (-1, 10, 1.0, True, "1", 2**63, 10**5000, float("nan"))),
    *(("flip", flip, "flip", FLIP) for flip in (0, 1, "true", "", None, 1.0)),
    ("flip", [True, 1], r"flip\[1\]", FLIP),
    *(
        ("seed_b", seed, "seed_b", "give a whole number from 0 to 9007199254740991")
        for seed in (-1, 2**53, "7", 1.5, True)
    ),
    *(("batch_size", size, "batch_size", BATCH_SIZE) for size in (0, -1, 1.5, True, "8", [8])),
    *(("deadline_s", s, "deadline_s", DEADLINE) for s in (0, -1, float("nan"), True, "8", [8])),
]


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return make_card(make_graph())


def build(card, n=None, seed=None, seeds=None, batch_size=None, deadline_s=300, **controls) -> Request:
    return build_request(
        card, n, seed=seed, seeds=seeds, batch_size=batch_size, deadline_s=deadline_s, controls=controls
    )


@pytest.mark.parametrize(
    ("argument", "value", "where", "allowed"), BAD, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(BAD)]
)
def test_request_bad_value_names_the_argument_and_what_is_allowed(card, argument, value, where, allowed):
    with pytest.raises(AigcError, match=allowed) as raised:
        build(card, **{argument: value})
    assert isinstance(raised.value, InvalidRequest | UnknownName)
    assert re.search(rf"(^| ){where} ", str(raised.value))
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("others", [{"n": 2}, {"seed": 0}, {"n": 2, "seed": 0}])
def test_request_seeds_with_n_or_seed_raises(card, others):
    with pytest.raises(InvalidRequest, match="leave out n and seed"):
        build(card, seeds=[1, 2], **others)


def test_request_unknown_control_gets_the_nearest_name(card):
    with pytest.raises(UnknownName, match=r"no control of tiny 'lable'. Did you mean 'label'\? There are: flip, gain"):
        build(card, lable=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 3, "label": [0, 1]}, "label has 2 values for 3 items; give one value, or 3"),
        ({"n": 3, "label": [0]}, "label has 1 values for 3 items"),
        ({"seeds": [1, 2], "gain": [1.0, 1.0, 1.0]}, "gain has 3 values for 2 items"),
        ({"label": [0, 1], "gain": [1, 1, 1]}, "gain has 3 values for 2 items"),
        ({"label": [], "gain": [1, 1]}, "label has 0 values for 2 items"),
    ],
)
def test_request_list_of_another_length_raises(card, arguments, message):
    with pytest.raises(InvalidRequest, match=message):
        build(card, **arguments)


def test_request_without_controls_gets_the_cards_defaults_in_its_dtypes(card):
    request = build(card, 3)
    assert {name: values.tolist() for name, values in request.controls.items()} == {
        "label": [-1] * 3,
        "gain": [1.0] * 3,
        "shift": [0] * 3,
        "flip": [False] * 3,
        "seed_b": [0] * 3,
    }
    assert [values.dtype.name for values in request.controls.values()] == ["int64", "float32", "int64", "bool", "int64"]
    assert list(request.controls) == [control.name for control in card.controls]


@pytest.mark.parametrize(
    ("name", "value", "fed"),
    [
        ("label", "owl", [2]),
        ("label", 2, [2]),
        ("label", -1, [-1]),
        ("label", ["owl", 0, -1, "dog"], [2, 0, -1, 1]),
        ("label", ("cat", "dog"), [0, 1]),
        ("label", range(3), [0, 1, 2]),
        ("label", (i for i in (1, 2)), [1, 2]),
        ("label", np.arange(3), [0, 1, 2]),
        ("label", np.array(["owl", "cat"]), [2, 0]),
        ("label", list(np.arange(3, dtype=np.uint8)), [0, 1, 2]),
        ("label", np.int32(2), [2]),
        ("label", np.array(2), [2]),
        ("label", np.str_("dog"), [1]),
        ("gain", 2, [2.0]),
        ("gain", 0.5, [0.5]),
        ("gain", np.float32(0.5), [0.5]),
        ("gain", [0, 0.5, np.float64(2)], [0.0, 0.5, 2.0]),
        ("gain", np.linspace(0, 2, 3), [0.0, 1.0, 2.0]),
        ("shift", 9, [9]),
        ("flip", True, [True]),
        ("flip", [True, np.False_], [True, False]),
        ("flip", np.array([True, False]), [True, False]),
        ("seed_b", 2**53 - 1, [2**53 - 1]),
        ("seed_b", np.array([1, 2], np.uint64), [1, 2]),
    ],
)
def test_request_good_value_is_fed_as_the_cards_dtype(card, name, value, fed):
    request = build(card, **{name: value})
    assert request.controls[name].tolist() == fed
    assert request.controls[name].dtype == card.control(name).dtype
    assert request.n == len(fed)


@pytest.mark.parametrize("n", [1, 3, np.int64(3), np.uint8(3)])
def test_request_scalar_is_for_all_items(card, n):
    assert build(card, n, label="dog", gain=0.5).controls["label"].tolist() == [1] * n


def test_request_seed_gives_the_published_item_seeds(card):
    assert np.array_equal(build(card, 5, seed=7).seeds, item_seeds(7, 5))
    assert np.array_equal(build(card, seed=np.int64(7), label=[0] * 5).seeds, item_seeds(7, 5))


def test_request_without_a_seed_draws_another_each_time(card):
    assert len({build(card).seeds[0] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "seeds", [[3, 2**53 - 1, 3], (3, 2**53 - 1, 3), np.array([3, 2**53 - 1, 3]), iter([3, 2**53 - 1, 3])]
)
def test_request_seeds_are_taken_as_they_are(card, seeds):
    request = build(card, seeds=seeds, label=range(3))
    assert request.seeds.tolist() == [3, 2**53 - 1, 3]
    assert request.seeds.dtype == np.int64


def test_request_seeds_range_counts_the_items(card):
    assert build(card, seeds=range(5)).n == 5


def test_request_default_batch_holds_at_most_so_many_values(card):
    def batch_size(shape):
        return build(replace(card, output=OutputSpec(dtype="uint8", shape=shape))).batch_size

    assert [batch_size(shape) for shape in ((8, 8, 1), (64, 64, 3), (2000, 2000, 3))] == [256, 21, 1]
    assert build(card, batch_size=np.int64(7)).batch_size == 7


def test_request_more_content_than_memory_holds_is_refused(card):
    large = replace(card, output=OutputSpec(dtype="uint8", shape=(1024, 1024, 4)))
    assert build(large, 1024).n == build(large, seeds=range(1024)).n == 1024
    with pytest.raises(InvalidRequest, match=r"n is 1025; .* from 1 to 1024"):
        build(large, 1025)
    with pytest.raises(InvalidRequest, match="seeds has more than 1024 values"):
        build(large, seeds=range(1025))


@pytest.mark.parametrize(("deadline_s", "kept"), [(None, None), (5, 5.0), (0.5, 0.5), (1e9, 1e9)])
def test_request_deadline_is_kept(card, deadline_s, kept):
    assert build(card, deadline_s=deadline_s).deadline_s == kept


@pytest.mark.parametrize("deadline_s", [float("inf"), 1e12, 10**400])
def test_request_deadline_beyond_what_threads_can_wait_is_none(card, deadline_s):
    assert build(card, deadline_s=deadline_s).deadline_s is None


def test_request_control_without_bounds_takes_what_its_dtype_holds(card):
    controls = (
        Control(name="x", kind="number", default=0.0, help=""),
        Control(name="i", kind="integer", default=0, help=""),
    )
    free = replace(card, controls=controls)
    assert build(free, x=-3e38, i=2**63 - 1).controls["i"].tolist() == [2**63 - 1]
    with pytest.raises(InvalidRequest, match=r"x is 1e\+39; give a number from -3.40282347e\+38 to 3.40282347e\+38"):
        build(free, x=1e39)
    with pytest.raises(InvalidRequest, match="i is 9223372036854775808; give a whole number from -9223372036854775807"):
        build(free, i=2**63)


def test_request_cannot_be_changed_on_its_way(card):
    with pytest.raises(FrozenInstanceError):
        build(card).seeds = np.array([1])


def test_request_controls_are_plain_json_for_provenance(card):
    request = build(card, gain=0.1, label="owl", flip=True)
    values = {name: array[0].item() for name, array in request.controls.items()}
    assert json.loads(json.dumps(values)) == values


def spelled(*names):
    return make_card(
        make_graph(), golden=None, controls=(Control(name="label", kind="choice", choices=names, default=-1, help="x"),)
    )


@pytest.mark.parametrize("asked", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("known", ["caf\u00e9", "cafe\u0301"])
def test_request_choice_is_found_in_either_unicode_form(known, asked):
    card = spelled("bar", known, "ça")
    assert build(card, label=asked).controls["label"].tolist() == [1]
    assert build(card, label=["bar", asked]).controls["label"].tolist() == [0, 1]
    with pytest.raises(UnknownName, match=r"Did you mean 'caf.+'\?"):
        build(card, label=asked.upper())


def test_request_choice_of_a_card_with_both_unicode_forms_is_the_one_that_was_asked_for():
    card = spelled("cafe\u0301", "caf\u00e9", "\u212b", "\uac00")
    asked = ["cafe\u0301", "caf\u00e9", "A\u030a", "\u1100\u1161"]
    assert build(card, label=asked).controls["label"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("asked", ["CAT", " cat", "cat\u00a0", "c\u200bat", "Great  Owl", "great\u00a0owl"])
def test_request_choice_that_differs_in_blanks_or_capitals_is_not_taken_but_named(asked):
    with pytest.raises(UnknownName, match=r"Did you mean '(cat|great owl)'"):
        build(spelled("cat", "great owl"), label=asked)
