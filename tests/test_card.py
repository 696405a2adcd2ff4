"""The card: strict JSON, controls that make sense, golden samples, and the published schema."""

import json
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from aigc_sdk.card import MAX_JSON_BYTES, Control, Golden, ModelCard, checked, parse_strict_json
from aigc_sdk.errors import InvalidModel
from tiny_model import CONTROLS, expected, make_card, make_graph

SCHEMA = Path(__file__).parents[1] / "docs" / "card.schema.json"


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return make_card(
        make_graph(), config={"latent": 4, "lr": 1e-3, "name": "Ö"}, scores=({"metric": "fid", "value": 1.5},)
    )


def changed(card: ModelCard, **values) -> str:
    return json.dumps({**json.loads(card.to_json()), **values})


def test_card_json_round_trip_is_equal(card):
    again = ModelCard.from_json(card.to_json())
    assert again == card
    assert again.to_json() == card.to_json()
    assert ModelCard.from_json(card.to_json().encode()) == card


def test_card_read_without_checks_is_the_same(card):
    quick, thorough = ModelCard.from_checked_json(card.to_json()), ModelCard.from_json(card.to_json())
    assert quick == thorough and repr(quick) == repr(thorough)


@pytest.mark.parametrize("values", [{"contract": 2}, {"surprise": 1}, {"controls": [3]}, {"output": None}])
def test_card_that_was_never_checked_is_refused_in_the_same_words(card, values):
    with pytest.raises(InvalidModel) as wanted:
        ModelCard.from_json(changed(card, **values))
    with pytest.raises(InvalidModel) as found:
        ModelCard.from_checked_json(changed(card, **values))
    assert str(found.value) == str(wanted.value)


def test_card_of_parts_made_by_hand_is_checked_whole(card):
    wrong = Control(name="x", kind="number", minimum=0, maximum=1, default=0, help=3)
    with pytest.raises(ValidationError, match=r"controls\.0\.help"):
        checked(ModelCard, vars(card) | {"controls": (wrong,)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "measure"}, "a measure says what its input is, and a model has none"),
        ({"input": {"dtype": "uint8", "shape": [8, 8, 1]}}, "a measure says what its input is"),
        ({"kind": "measure", "input": {"dtype": "uint8", "shape": [8, 8, 1]}}, "a measure has no controls"),
        ({"kind": "measure", "input": {"dtype": "object", "shape": []}}, r"wrong at input\.dtype"),
    ],
)
def test_card_that_is_half_a_measure_is_refused(card, values, message):
    with pytest.raises(InvalidModel, match=message):
        ModelCard.from_json(changed(card, **values))


def test_card_of_a_model_says_nothing_of_an_input(card):
    assert "input" not in json.loads(card.to_json())


def test_card_cannot_be_changed(card):
    with pytest.raises(FrozenInstanceError):
        card.name = "other"
    with pytest.raises(FrozenInstanceError):
        card.controls[0].default = 1


def test_card_control_goes_by_name(card):
    assert card.control("gain") == CONTROLS[1]
    assert card.control("gian") is None


def test_card_schema_file_is_that_of_the_classes():
    schema = json.dumps(TypeAdapter(ModelCard).json_schema(mode="serialization"), indent=1, sort_keys=True) + "\n"
    message = "docs/card.schema.json is out of step; write the `schema` of this test to it again"
    assert SCHEMA.read_text(encoding="utf-8") == schema, message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"contract": 2}, "follows contract 2; this SDK knows contract 1"),
        ({"contract": None}, "follows contract None"),
        ({"surprise": 1}, "wrong at surprise: there is no such field"),
        ({"name": "../evil"}, "wrong at name"),
        ({"name": "a" * 101}, "wrong at name"),
        ({"modality": "a smell"}, "wrong at modality"),
        ({"graph_sha256": "0"}, "wrong at graph_sha256"),
        ({"controls": [{"name": "x"}]}, r"wrong at controls\.0\.kind"),
        ({"output": {"dtype": "object", "shape": []}}, r"wrong at output\.dtype"),
        ({"data": {"name": "x", "fingerprint": "0" * 64, "n": 0, "split": {}}}, r"wrong at data\.n"),
        ({"golden": {"seeds": [0]}}, r"wrong at golden\."),
        ({"output": {"dtype": "uint8", "shape": ["8", "8", "1"]}}, r"wrong at output\.shape\.0"),
        ({"output": {"dtype": "uint8", "shape": [8.0, 8, 1]}}, r"wrong at output\.shape\.0"),
        ({"output": {"dtype": "uint8", "shape": [8, 8, 1], "length": "no"}}, r"wrong at output\.length"),
        ({"golden": {"seeds": ["0"], "controls": {}, "shape": [1], "content": ""}}, r"wrong at golden\.seeds\.0"),
        ({"golden": {"seeds": [0], "controls": {}, "shape": [4.0], "content": ""}}, r"wrong at golden\.shape\.0"),
        ({"portable": 1}, "wrong at portable"),
    ],
)
def test_card_wrong_field_is_named(card, values, message):
    with pytest.raises(InvalidModel, match=message):
        ModelCard.from_json(changed(card, **values))


@pytest.mark.parametrize("text", ["[]", "null", "3", '"card"'])
def test_card_no_object_raises(text):
    with pytest.raises(InvalidModel, match="no JSON object, but"):
        ModelCard.from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("{} x", "Extra data"),
        ("{'a': 1}", "Expecting property name"),
        (b"\xff\xfe", "codec can't decode"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a": 1, "a": 2}', "a key stands twice"),
        ('{"b": {"a": 1, "a": 1}}', "a key stands twice"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[1e999]", "1e999 is too large"),
        ("[9223372036854775808]", "beyond 64 bits"),
        ("[" + "9" * 5000 + "]", "99999 is beyond 64 bits"),
        ('["\\ud800"]', "surrogates not allowed"),
        ('{"\\udfff": 1}', "surrogates not allowed"),
        ('"\ud800"', "surrogates not allowed"),
        ("[" * 33 + "]" * 33, "nested deeper than 32"),
        ("[" * 100_000, "recursion"),
        ('{"a":' * 100_000, "recursion"),
    ],
)
def test_parse_strict_json_refuses(text, message):
    with pytest.raises(InvalidModel, match=f"^The card is not strict JSON: .*{message}"):
        parse_strict_json(text)


def test_parse_strict_json_too_large_raises():
    with pytest.raises(InvalidModel, match="larger than 1048576 bytes"):
        parse_strict_json('"' + "a" * MAX_JSON_BYTES + '"')


def test_parse_strict_json_takes_what_json_is():
    text = '{"a": [1, -9223372036854775808, 2.5e300, true, null, "\\ud83d\\ude00 Ö"], "b": ' + "[" * 31 + "]" * 31 + "}"
    assert parse_strict_json(text)["a"] == [1, -(2**63), 2.5e300, True, None, "😀 Ö"]


def test_control_dtype_is_that_of_its_kind():
    assert [control.dtype for control in CONTROLS] == ["int64", "float32", "int64", "bool", "int64"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "seed", "kind": "seed"}, "is reserved"),
        ({"name": "Label", "kind": "flag", "default": False}, "name"),
        ({"name": "", "kind": "flag", "default": False}, "name"),
        ({"kind": "smell"}, "kind"),
        ({"kind": "image"}, "of kind image is uint8 of shape .height, width, 1, 3 or 4."),
        ({"kind": "image", "shape": (8, 8, 2)}, "of kind image is uint8 of shape"),
        ({"kind": "mask", "shape": (8, 8, 3)}, "of kind mask is uint8 of shape .height, width, 1."),
        ({"kind": "mask", "shape": (8, 8, 1), "default": 256}, "default is 256"),
        ({"kind": "number", "default": None}, "default is None"),
        ({"kind": "number", "dtype": "float64"}, "of kind number is float32"),
        ({"kind": "number", "shape": (2,)}, "of kind number is float32 of shape"),
        ({"kind": "choice"}, "distinct choices"),
        ({"kind": "choice", "choices": ("a", "a")}, "distinct choices"),
        ({"kind": "choice", "choices": ("a", "")}, "at least 1 character"),
        ({"kind": "number", "choices": ("a",)}, "a number control has no choices"),
        ({"kind": "choice", "choices": ("a", "b"), "default": 2}, "default is 2, not one of a, b"),
        ({"kind": "choice", "choices": ("a",), "default": -2}, "default is -2"),
        ({"kind": "choice", "choices": ("a", "b"), "default": True}, "default is True"),
        ({"kind": "flag", "default": 1}, "default is 1, not True or False"),
        ({"kind": "integer", "default": 0.5}, "default is 0.5, not a whole number"),
        ({"kind": "integer", "default": 2**63}, "not a whole number from -9223372036854775807"),
        ({"kind": "number", "default": True}, "not a number from -3.40282347e"),
        ({"kind": "number", "default": 1e39}, "not a number from"),
        ({"kind": "number", "default": float("nan")}, "finite"),
        ({"kind": "number", "default": 2, "maximum": 1}, "default is 2, not a number from .* to 1"),
        ({"kind": "number", "minimum": 1, "maximum": 0}, "range 1 to 0 is empty"),
        ({"kind": "number", "maximum": 1e39}, "more than float32 holds"),
        ({"kind": "integer", "maximum": 1e19}, "more than int64 holds"),
        ({"kind": "number", "minimum": float("-inf")}, "finite"),
        ({"kind": "seed", "default": -1}, "not a whole number from 0 to 9007199254740991"),
        ({"kind": "seed", "maximum": 9}, "a seed control has no minimum and maximum"),
    ],
)
def test_control_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        checked(Control, {"name": "x", "help": "", "default": 0, **values})


@pytest.mark.parametrize(
    ("values", "value_range", "allowed"),
    [
        ({"kind": "choice", "choices": ("a", "b")}, (-1, 1), "one of a, b, its index from 0 to 1, or -1"),
        ({"kind": "flag", "default": True}, (0, 1), "True or False"),
        ({"kind": "seed"}, (0, 2**53 - 1), "a whole number from 0 to 9007199254740991"),
        ({"kind": "integer", "minimum": -0.5, "maximum": 1234567.5}, (0, 1234567), "a whole number from 0 to 1234567"),
        ({"kind": "integer"}, (-(2**63) + 1, 2**63 - 1), "a whole number from -9223372036854775807"),
        ({"kind": "number", "minimum": 0, "maximum": 0.1}, (0, 0.1), "a number from 0 to 0.1"),
    ],
)
def test_control_range_and_words_for_it(values, value_range, allowed):
    control = Control(**{"name": "x", "help": "", "default": 0, **values})
    assert control.range == value_range
    assert control.allowed.startswith(allowed)


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.7, 1 / 3, 2 / 3, 1e-7, 3.3e38])
def test_control_accepts_its_bounds_and_the_float32_nearest_to_them(bound):
    control = Control(name="x", kind="number", minimum=-bound, maximum=bound, default=0, help="")
    for value in (bound, float(np.float32(bound))):
        assert control.accepts(value) and control.accepts(-value)
    assert not control.accepts(bound * 1.000001)
    assert not control.accepts(bound * -1.000001)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("shape", [(1,), (4, 8, 8, 1), (3, 50, 41)])
def test_golden_round_trip_is_exact(dtype, shape):
    content = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    golden = Golden.of(np.arange(shape[0]), {"gain": np.ones(shape[0], np.float32)}, content)
    again = checked(Golden, json.loads(json.dumps(asdict(golden)))).array(dtype)
    assert again.dtype == dtype
    assert np.array_equal(again, content)


def test_golden_of_any_size_unpacks():
    rng = np.random.default_rng(0)
    for size in range(1, 400):
        content = rng.integers(0, 4, (1, size)).astype(np.uint8)
        assert np.array_equal(Golden.of(np.zeros(1, np.int64), {}, content).array("uint8"), content)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shape": (4, 8, 8, 2)}, "does not hold 512 bytes"),
        ({"shape": (4, 8, 7, 1)}, "does not hold 224 bytes"),
        ({"shape": (0,)}, "is 0 bytes"),
        ({"shape": (-1, 8, 8, 1)}, "is -64 bytes"),
        ({"shape": (-16, -16)}, "cannot be unpacked"),
        ({"shape": (10**9, 10**9, 10**9)}, "at most 67108864 are allowed"),
        ({"content": ""}, "does not hold 256 bytes"),
        ({"content": "?"}, "base64"),
        ({"content": "é"}, "ASCII"),
        ({"content": "AAAA"}, "decompressing"),
    ],
)
def test_golden_that_does_not_fit_its_shape_raises(card, values, message):
    golden = replace(card.golden, **values)
    with pytest.raises(InvalidModel, match=message):
        golden.array("uint8")


def test_golden_bomb_is_not_unpacked(card):
    bomb = Golden.of(np.zeros(1, np.int64), {}, np.zeros((1, 50_000_000), np.uint8))
    with pytest.raises(InvalidModel, match="does not hold 10 bytes"):
        replace(bomb, shape=(1, 10)).array("uint8")


def test_golden_of_the_tiny_model_is_what_it_makes(card):
    assert np.array_equal(card.golden.array("uint8"), expected(card.golden.seeds))
