"""Hostile and broken model files: each is a good one with one thing changed, and each is refused in its own words."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

import aigc_sdk as sdk
from aigc_sdk.card import CARD_KEY, Control, Golden, OutputSpec
from aigc_sdk.errors import AigcError, DeadlineExceeded, GenerationFailed, InvalidModel, StorageError
from aigc_sdk.runtime import OnnxGenerator, session
from aigc_sdk.runtime.folding import GROWING_DEFINITIONS, folding_cost, may_fold
from aigc_sdk.runtime.safety import MAX_NODES, check_model, graph_sha256, read_model
from hostile_models import HOSTILE
from tiny_measure import SHAPE, K, contents, expected_value, make_measure_card, make_measure_graph, write_tiny_measure
from tiny_model import CONTROLS, SIZE, expected, make_card, make_graph, to_bytes, write_tiny_model

# More bytes than there are addresses, so that no machine ever gives them, however it over-commits.
ABSURD_COUNT = 2**46

LOAD_AND_REPORT = """
import sys
import aigc_sdk as sdk
try:
    sdk.load(sys.argv[1])
except sdk.errors.AigcError as error:
    print(type(error).__name__, error)
"""


def load(folder: Path, data: bytes) -> sdk.Model:
    path = folder / "tampered.onnx"
    path.write_bytes(data)
    return sdk.load(path)


def load_elsewhere(path, timeout_s: float = 30) -> str:
    """Load in another process, which is killed when it hangs, and return the error and its message."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_AND_REPORT, str(path)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
    return done.stdout


def refused(data: bytes) -> str:
    """Return the message of the static checks, which have to refuse these bytes by themselves."""
    with pytest.raises(InvalidModel) as caught:
        check_model(data, "tampered.onnx")
    assert str(caught.value).startswith("tampered.onnx is not ")
    return str(caught.value)


def with_card(graph: ModelProto, **changes) -> bytes:
    return to_bytes(graph, make_card(graph, **changes))


def edited_card(**changes) -> bytes:
    """Return the good graph with a card whose JSON is changed without its classes seeing it."""
    graph = make_graph()
    values = json.loads(make_card(graph).to_json())
    return to_bytes(graph, json.dumps({**values, **changes}))


def replaced_card(old: str, new: str) -> bytes:
    graph = make_graph()
    text = make_card(graph).to_json()
    assert old in text
    return to_bytes(graph, text.replace(old, new, 1))


def initializer(graph: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in graph.graph.initializer if tensor.name == name)


def node(graph: ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in graph.graph.node if node.output[0] == output)


def test_tiny_model_untouched_is_accepted(tiny_path):
    assert check_model(tiny_path.read_bytes(), "tiny.onnx").name == "tiny"
    np.testing.assert_array_equal(sdk.load(tiny_path).generate(3, seed=5).to_numpy()[0], expected([5])[0])


# ---------------------------------------------------------------- what is no model file at all


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x00", "not an ONNX file"),
        (np.random.default_rng(0).bytes(5000), "not an ONNX file"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "web page"),
        (b"\n\n  <html>", "web page"),
        (b'{"model": "digits"}', "is text"),
        (b'[{"name": 1}]', "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX file"),
        (b"PK\x03\x04" + bytes(100), "not an ONNX file"),
    ],
    ids=["empty", "zero", "random", "html", "html-after-blanks", "json", "json-list", "lfs-pointer", "png", "zip"],
)
def test_load_no_model_file_is_refused(tmp_path, data, message):
    with pytest.raises(InvalidModel, match=message):
        load(tmp_path, data)


def test_check_truncated_at_any_point_is_refused():
    data = with_card(make_graph())
    for length in range(1, len(data), 37):
        refused(data[:length])


@pytest.mark.parametrize("length", [0.1, 0.5, 0.9, 0.999])
def test_load_truncated_is_refused(tmp_path, length):
    data = with_card(make_graph())
    with pytest.raises(InvalidModel, match=r"tampered\.onnx is not"):
        load(tmp_path, data[: int(len(data) * length)])


def test_check_any_damage_is_refused_or_harmless():
    """Flip, drop and insert bytes: whatever happens, it is our error, and soon."""
    random = np.random.default_rng(1)
    data = with_card(make_graph())
    for _ in range(1500):
        at, kind = int(random.integers(len(data))), int(random.integers(3))
        middle = [bytes([data[at] ^ 1 << int(random.integers(8))]), b"", random.bytes(4)][kind]
        try:
            check_model(data[:at] + middle + data[at + 1 :], "damaged.onnx")
        except InvalidModel:
            continue


def test_load_folder_is_refused(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(InvalidModel, match=r"has no model\.onnx|is a folder"):
        sdk.load(tmp_path / "model.onnx")
    with pytest.raises(InvalidModel, match="is a folder"):
        read_model(tmp_path / "model.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_load_named_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "InvalidModel" in (report := load_elsewhere(tmp_path / "pipe.onnx"))
    assert "not a regular file" in report


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_load_endless_device_is_refused_at_once(tmp_path):
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    assert "InvalidModel" in (report := load_elsewhere(tmp_path / "zero.onnx"))
    assert "not a regular file" in report


def test_read_larger_than_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "sparse.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(InvalidModel, match="at most 2147483647"):
        read_model(path)


@pytest.mark.parametrize("name", ["missing.onnx", "missing/model.onnx", "x" * 300 + ".onnx", "a\0b.onnx"])
def test_read_missing_file_is_storage_error(tmp_path, name):
    with pytest.raises(StorageError, match="Cannot read"):
        read_model(tmp_path / name)


def test_load_missing_file_is_storage_error(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        sdk.load(tmp_path / "missing.onnx")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs the file modes of POSIX")
def test_load_unreadable_file_is_storage_error():
    with tempfile.TemporaryDirectory() as folder:  # unlike tmp_path, it can be opened to others
        Path(folder).chmod(0o755)
        path = write_tiny_model(Path(folder) / "secret.onnx")
        path.chmod(0)
        was = os.geteuid()
        if was == 0:  # root may read everything; nobody may not
            os.seteuid(65534)
        try:
            with pytest.raises(StorageError, match="Permission denied"):
                sdk.load(path)
        finally:
            os.seteuid(was)


def test_read_refused_file_leaves_no_descriptor_open(tmp_path):
    psutil = pytest.importorskip("psutil")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    before = psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0
    for _ in range(20):
        for name in ("folder", "empty", "missing"):
            with pytest.raises(AigcError):
                read_model(tmp_path / name)
    assert (psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0) == before


def test_load_link_to_a_model_is_accepted(tmp_path, tiny_path):
    (tmp_path / "link.onnx").symlink_to(tiny_path)
    assert sdk.load(tmp_path / "link.onnx").card.name == "tiny"


# ---------------------------------------------------------------- the card


def test_check_no_card_is_refused():
    assert "no cards (metadata 'aigc.card')" in refused(to_bytes(make_graph(), None))


def test_check_two_cards_is_refused():
    graph = make_graph()
    card = make_card(graph)
    graph.metadata_props.add(key=CARD_KEY, value=card.to_json())
    assert "has 2 cards" in refused(to_bytes(graph, card))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not strict JSON"),
        ("hello", "not strict JSON"),
        ("[1, 2]", "no JSON object"),
        ("null", "no JSON object"),
        ("{} {}", "not strict JSON"),
        ("[" * 100_000, "not strict JSON"),
        ('{"a":' * 33 + "1" + "}" * 33, "nested deeper than 32"),
        ('"' + "x" * 2**20 + '"', "larger than 1048576 bytes"),
    ],
    ids=["empty", "word", "list", "null", "two-values", "100000-deep", "33-deep", "1-MB"],
)
def test_check_card_not_json_is_refused(text, message):
    assert message in refused(to_bytes(make_graph(), text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": "1.0"', '"version": "1.0", "version": "2.0"', "a key stands twice"),
        ('"config": {}', '"config": {"a": {"b": 1, "b": 2}}', "a key stands twice"),
        ('"config": {}', '"config": {"a": NaN}', "NaN is not JSON"),
        ('"config": {}', '"config": {"a": -Infinity}', "-Infinity is not JSON"),
        ('"config": {}', '"config": {"a": 1e999}', "1e999 is too large"),
        ('"config": {}', '"config": {"a": 1' + "0" * 5000 + "}", "beyond 64 bits"),
        ('"license": "Apache-2.0"', '"license": "\\ud800"', "surrogates not allowed"),
        ('"config": {}', '"config": {"\\udfff": 1}', "surrogates not allowed"),
        ('"contract": 1', '"contract": 2', "follows contract 2"),
        ('"contract": 1', '"contract": "1"', "follows contract '1'"),
        ('"kind": "model"', '"kind": "score"', "wrong at kind"),
        ('"kind": "model"', '"kind": "measure"', "a measure says what its input is, and a model has none"),
        ('"config": {}', '"config": {}, "rights": "all"', "wrong at rights"),
        ('"license": "Apache-2.0", ', "", "wrong at license"),
        ('"name": "tiny"', '"name": "../../tiny"', "wrong at name"),
        (
            '"modality": "image"',
            '"modality": "smell"',
            "no plugin that is installed knows what it makes or takes: There is no modality 'smell'",
        ),
        ('"name": "gain"', '"name": "batch_size"', "'batch_size' is reserved"),
    ],
)
def test_check_card_tampered_json_is_refused(old, new, message):
    assert message in refused(replaced_card(old, new))


def test_check_card_not_utf8_is_refused():
    data = with_card(make_graph()).replace(b'"tests"', b'"t\xff\xfets"')
    assert "not strict JSON" in refused(data)


@pytest.mark.parametrize(
    ("golden", "message"),
    [
        (None, "no golden items"),
        ({"seeds": [], "shape": [0, SIZE, SIZE, 1]}, "no golden items"),
        ({"seeds": list(range(17))}, "more than 16"),
        ({"shape": [4, SIZE, SIZE, 3]}, "have the shape"),
        ({"shape": [5, SIZE, SIZE, 1]}, "have the shape"),
        ({"shape": [4, 2**62, 4, 1]}, "have the shape"),
        ({"shape": [-4, SIZE, -SIZE, 1]}, "have the shape"),
        ({"seeds": [0, 1, 2, 2**63]}, "beyond 64 bits"),
        ({"seeds": [0, 1, 2, 2**53]}, "a seed of its golden items"),
        ({"seeds": [0, 1, 2, -1]}, "a seed of its golden items"),
        ({"controls": {}}, "not the card's"),
        ({"content": ""}, "cannot be unpacked"),
        ({"content": "%%%"}, "cannot be unpacked"),
        ({"content": base64.b64encode(b"not zlib").decode()}, "cannot be unpacked"),
        ({"content": base64.b64encode(zlib.compress(bytes(255))).decode()}, "does not hold 256 bytes"),
        ({"content": base64.b64encode(zlib.compress(bytes(256))[:-1]).decode()}, "does not hold 256 bytes"),
    ],
)
def test_check_golden_tampered_is_refused(golden, message):
    values = json.loads(make_card(make_graph()).to_json())["golden"]
    assert message in refused(edited_card(golden=golden and {**values, **golden}))


@pytest.mark.parametrize(
    ("control", "values", "message"),
    [
        ("label", [0, 1, 2, 3], "values of 'label' that cannot be fed"),
        ("gain", [1, 1, 1, 1e300], "values of 'gain' that cannot be fed"),
        ("shift", [0, 0, 0, 10], "values of 'shift' that cannot be fed"),
        ("shift", [0, 0, 0, 1.5], "values of 'shift' that cannot be fed"),
        ("flip", [0, 0, 0, 2], "values of 'flip' that cannot be fed"),
        ("flip", [False], "have 1 values of 'flip'"),
    ],
)
def test_check_golden_control_out_of_range_is_refused(control, values, message):
    golden = json.loads(make_card(make_graph()).to_json())["golden"]
    golden["controls"][control] = values
    assert message in refused(edited_card(golden=golden))


def test_check_golden_zip_bomb_is_refused_unpacked_no_further_than_needed():
    golden = json.loads(make_card(make_graph()).to_json())["golden"]
    golden["content"] = base64.b64encode(zlib.compress(bytes(300_000_000), 9)).decode()
    data = edited_card(golden=golden)
    tracemalloc.start()
    try:
        assert "does not hold 256 bytes" in refused(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- versions and operators


@pytest.mark.parametrize("opset", [1, 17, 22, 2**40])
def test_check_opset_out_of_range_is_refused(opset):
    graph = make_graph()
    graph.opset_import[0].version = opset
    assert f"its opset is {opset}; 18 to 21 are known" in refused(with_card(graph))


@pytest.mark.parametrize("opset", [18, 19, 20, 21])
def test_load_opset_in_range_is_accepted(tmp_path, opset):
    graph = make_graph()
    graph.opset_import[0].version = opset
    assert len(load(tmp_path, with_card(graph)).generate(2)) == 2


@pytest.mark.parametrize("domains", [[], ["", ""], ["", "ai.onnx"]])
def test_check_opset_not_said_once_is_refused(domains):
    graph = make_graph()
    del graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(domain, 20) for domain in domains)
    assert "which opset it uses" in refused(with_card(graph))


@pytest.mark.parametrize("version", [0, 2, 11, 2**62])
def test_check_ir_version_out_of_range_is_refused(version):
    graph = make_graph()
    graph.ir_version = version
    assert f"its IR version is {version}, at most 10" in refused(with_card(graph))


def test_check_no_graph_is_refused():
    graph = make_graph()
    graph.ClearField("graph")
    assert "it has no graph" in refused(with_card(graph))


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "ai.onnx.training", "com.example.evil", "AI.ONNX"])
def test_check_foreign_domain_is_refused(domain):
    graph = make_graph()
    graph.opset_import.append(helper.make_opsetid(domain, 1))
    assert f"the operator domain {domain!r}" in refused(with_card(graph))


@pytest.mark.parametrize(
    ("domain", "operator"), [("com.microsoft", "EPContext"), ("com.microsoft", "Gelu"), ("com.example", "PyOp")]
)
def test_check_foreign_operator_is_refused_even_without_its_domain(domain, operator):
    graph = make_graph()
    graph.graph.node.append(helper.make_node(operator, ["seed"], ["unused"], domain=domain))
    assert f"the operator {domain}.{operator}, which is not standard" in refused(with_card(graph))


def test_load_unknown_standard_operator_is_refused(tmp_path):
    graph = make_graph()
    node(graph, "label_part").op_type = "Frobnicate"
    with pytest.raises(InvalidModel, match=r"onnxruntime cannot load tampered\.onnx.*Frobnicate"):
        load(tmp_path, with_card(graph))


RANDOM_NODES = [
    helper.make_node("RandomNormal", [], ["noise"], shape=[2]),
    helper.make_node("RandomUniformLike", ["seed"], ["noise"], dtype=TensorProto.FLOAT),
    helper.make_node("Multinomial", ["scores"], ["noise"], sample_size=1, domain="ai.onnx"),
    helper.make_node("Bernoulli", ["scores"], ["noise"]),
]


def body_with(inner: onnx.NodeProto) -> GraphProto:
    return helper.make_graph([inner], "body", [], [helper.make_tensor_value_info("noise", TensorProto.FLOAT, None)])


def hidden_at_top(graph: ModelProto, inner: onnx.NodeProto) -> None:
    graph.graph.node.append(inner)


def hidden_in_if(graph: ModelProto, inner: onnx.NodeProto) -> None:
    body = body_with(inner)
    graph.graph.node.append(helper.make_node("If", ["flip"], ["unused"], then_branch=body, else_branch=body))


def hidden_in_loop_in_if(graph: ModelProto, inner: onnx.NodeProto) -> None:
    hidden_in_if(graph, helper.make_node("Loop", ["seven"], ["noise"], body=body_with(inner)))


def hidden_in_lying_attribute(graph: ModelProto, inner: onnx.NodeProto) -> None:
    """Declare the body's type as an integer: whoever believes `type` does not look inside."""
    hidden_in_if(graph, inner)
    for attribute in graph.graph.node[-1].attribute:
        attribute.type = AttributeProto.INT


@pytest.mark.parametrize("inner", RANDOM_NODES, ids=lambda node: node.op_type)
@pytest.mark.parametrize("hide", [hidden_at_top, hidden_in_if, hidden_in_loop_in_if, hidden_in_lying_attribute])
def test_check_random_operator_is_refused_wherever_it_hides(hide, inner):
    graph = make_graph()
    hide(graph, inner)
    assert f"it uses {inner.op_type}, so its content would not be a function of the seed" in refused(with_card(graph))


# ---------------------------------------------------------------- functions and size


def add_functions(graph: ModelProto, bodies: list[list[onnx.NodeProto]], domain: str = "local") -> None:
    """Add the functions f0, f1, ... and a call of f0."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(domain, 1)]
    for index, body in enumerate(bodies):
        graph.functions.append(helper.make_function(domain, f"f{index}", ["x"], ["y"], body, opsets))
    graph.opset_import.append(helper.make_opsetid(domain, 1))
    graph.graph.node.append(helper.make_node("f0", ["seed"], ["unused"], domain=domain))


def calls(*names: str) -> list[onnx.NodeProto]:
    """Return nodes from x to y that call these functions one after the other."""
    values = ["x", *(f"v{i}" for i in range(len(names) - 1)), "y"]
    return [helper.make_node(name, [values[i]], [values[i + 1]], domain="local") for i, name in enumerate(names)]


END = [helper.make_node("Identity", ["x"], ["y"])]
FUNCTIONS = {
    "doubling-24-levels": [*(calls(f"f{i + 1}", f"f{i + 1}") for i in range(24)), END],
    "calls-itself": [calls("f0")],
    "calls-in-a-circle": [calls("f1"), calls("f0")],
    "nested-2000-deep": [*(calls(f"f{i + 1}") for i in range(2000)), END],
    "random-inside": [[helper.make_node("Bernoulli", ["x"], ["y"])]],
}


@pytest.mark.parametrize("bodies", FUNCTIONS.values(), ids=FUNCTIONS)
def test_load_functions_are_refused_at_once(tmp_path, bodies):
    graph = make_graph()
    add_functions(graph, bodies)
    path = tmp_path / "functions.onnx"
    path.write_bytes(with_card(graph))
    report = load_elsewhere(path)  # without the check, this would hang
    assert "InvalidModel" in report
    assert "defines the function 'f0'; functions have to be inlined" in report
    start = time.perf_counter()
    refused(path.read_bytes())
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("domain", ["", "ai.onnx", "com.microsoft"])
def test_check_function_in_the_place_of_a_known_operator_is_refused(domain):
    graph = make_graph()
    graph.functions.append(
        helper.make_function(domain, "Identity", ["x"], ["y"], RANDOM_NODES[:1], [helper.make_opsetid("", 20)])
    )
    assert "defines the function 'Identity'" in refused(with_card(graph))


def test_check_too_many_nodes_is_refused():
    graph = make_graph()
    one = helper.make_node("Identity", ["seed"], ["unused"])
    graph.graph.node.extend([one] * (MAX_NODES - len(graph.graph.node) - len(graph.graph.initializer) + 1))
    assert "more than 100000 nodes and weights" in refused(with_card(graph))


def test_check_too_many_nodes_in_bodies_is_refused():
    graph = make_graph()
    body = helper.make_graph([helper.make_node("Identity", ["seed"], ["unused"])] * 1000, "body", [], [])
    graph.graph.node.extend([helper.make_node("If", ["flip"], ["x"], then_branch=body, else_branch=body)] * 51)
    assert "more than 100000 nodes and weights" in refused(with_card(graph))


def test_check_bodies_nested_without_end_are_refused():
    def field(number: int, data: bytes) -> bytes:
        length, prefix = len(data), bytearray([number << 3 | 2])
        while length >= 128:
            prefix.append(length % 128 | 128)
            length //= 128
        return bytes([*prefix, length]) + data

    inner = b""
    for _ in range(2000):
        inner = field(1, field(5, field(6, inner)))  # graph.node.attribute.g
    assert "not an ONNX file" in refused(field(7, inner) + with_card(make_graph()))


# ---------------------------------------------------------------- tensors


def constant(graph: ModelProto, tensor: TensorProto) -> TensorProto:
    """Add a node that holds the tensor in an attribute, and return that copy of it."""
    graph.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))
    return graph.graph.node[-1].attribute[0].t


def weight(graph: ModelProto, tensor: TensorProto) -> TensorProto:
    graph.graph.initializer.append(tensor)
    return graph.graph.initializer[-1]


def weight_of_a_body(graph: ModelProto, tensor: TensorProto) -> TensorProto:
    body = helper.make_graph([], "body", [], [], [tensor])
    graph.graph.node.append(helper.make_node("If", ["flip"], ["unused"], then_branch=body, else_branch=body))
    return graph.graph.node[-1].attribute[0].g.initializer[0]


def lying_constant(graph: ModelProto, tensor: TensorProto) -> TensorProto:
    held = constant(graph, tensor)
    graph.graph.node[-1].attribute[0].type = AttributeProto.FLOAT
    return held


PLACES = [weight, constant, weight_of_a_body, lying_constant]


def floats(*values: float, dtype="float32") -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), "w")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd", "link/weights.bin"])
def test_load_external_data_is_refused(tmp_path, place, location):
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    graph = make_graph()
    tensor = place(graph, floats(1, 2))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(InvalidModel, match="keeps its data outside of the file"):
        load(tmp_path, with_card(graph))


def test_check_external_data_beside_its_own_is_refused():
    graph = make_graph()
    weight(graph, floats(1, 2)).external_data.add(key="location", value="weights.bin")
    assert "outside of the file" in refused(with_card(graph))


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (helper.make_node("Constant", [], ["noise"], value_string="a"), "'value_string' of Constant holds strings"),
        (helper.make_node("Constant", [], ["noise"], value_strings=["a"]), "'value_strings' of Constant holds strings"),
        (helper.make_node("Cast", ["seed"], ["noise"], to=TensorProto.STRING), "it uses Cast to make strings"),
        (helper.make_node("StringConcat", ["a", "a"], ["noise"]), "it uses StringConcat to make strings"),
        (helper.make_node("StringSplit", ["a"], ["noise", "n"]), "it uses StringSplit to make strings"),
        (helper.make_node("RegexFullMatch", ["a"], ["noise"], pattern="a*"), "it uses RegexFullMatch"),
    ],
)
@pytest.mark.parametrize("hide", [hidden_at_top, hidden_in_if, hidden_in_loop_in_if])
def test_check_strings_are_refused(hide, inner, message):
    graph = make_graph()
    hide(graph, inner)
    assert message in refused(with_card(graph))


@pytest.mark.parametrize("place", PLACES)
def test_check_tensor_of_a_thousand_dimensions_is_refused(place):
    graph = make_graph()
    place(graph, TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1] * 1000, raw_data=bytes(4)))
    assert "has the impossible shape (1, 1, " in refused(with_card(graph))


def test_check_sparse_tensors_are_refused():
    sparse = helper.make_sparse_tensor(floats(1), numpy_helper.from_array(np.array([3]), "i"), [9])
    for attach in (
        lambda graph: graph.graph.sparse_initializer.append(sparse),
        lambda graph: graph.graph.node.append(helper.make_node("Constant", [], ["unused"], sparse_value=sparse)),
        lambda graph: graph.graph.node[0].attribute.add(name="a").sparse_tensors.append(sparse),
    ):
        graph = make_graph()
        attach(graph)
        assert "holds sparse tensors" in refused(with_card(graph))


@pytest.mark.parametrize(
    "attach",
    [
        lambda attribute: attribute.tensors.append(floats(float("nan"))),
        lambda attribute: attribute.graphs.append(body_with(RANDOM_NODES[0])),
        lambda attribute: setattr(attribute, "ref_attr_name", "elsewhere"),
    ],
    ids=["tensors", "graphs", "reference"],
)
def test_check_attribute_that_no_operator_takes_is_refused(attach):
    graph = make_graph()
    attach(graph.graph.node[0].attribute.add(name="a"))
    assert "the attribute 'a' of Mul is of a kind that no standard operator takes" in refused(with_card(graph))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "has 15 bytes, its shape (2, 2) says 16"),
        (lambda t: setattr(t, "raw_data", t.raw_data + b"0"), "has 17 bytes"),
        (lambda t: setattr(t, "raw_data", b""), "has 0 bytes"),
        (lambda t: t.ClearField("raw_data"), "has 0 values, its shape (2, 2) says 4"),
        (lambda t: t.dims.append(2), "shape (2, 2, 2) says 32"),
        (lambda t: t.dims.extend([2**30, 2**30, 2**30]), "its shape (2, 2, 1073741824"),
        (lambda t: t.dims.append(2**62), "impossible shape"),
        (lambda t: t.dims.extend([0, 2**62]), "impossible shape"),
        (lambda t: t.dims.extend([-1, -1]), "impossible shape (2, 2, -1, -1)"),
        (lambda t: setattr(t.segment, "end", 1), "impossible shape"),
        (lambda t: t.float_data.extend([1, 2, 3, 4]), "in float_data and raw_data"),
        (lambda t: (t.ClearField("raw_data"), t.float_data.extend([1, 2, 3])), "has 3 values"),
        (lambda t: (t.ClearField("raw_data"), t.int64_data.extend([1, 2, 3, 4])), "keeps its data in int64_data"),
        (lambda t: setattr(t, "data_type", TensorProto.INT8), "has 16 bytes, its shape (2, 2) says 4"),
        (lambda t: setattr(t, "data_type", TensorProto.UNDEFINED), "data type 0"),
        (lambda t: setattr(t, "data_type", TensorProto.STRING), "data type 8"),
        (lambda t: setattr(t, "data_type", TensorProto.COMPLEX64), "data type 14"),
        (lambda t: setattr(t, "data_type", TensorProto.FLOAT8E4M3FN), "data type 17"),
        (lambda t: setattr(t, "data_type", TensorProto.INT4), "data type 22"),
        (lambda t: setattr(t, "data_type", 12345), "data type 12345"),
    ],
)
def test_check_tensor_unlike_its_shape_is_refused(place, tamper, message):
    graph = make_graph()
    tamper(place(graph, numpy_helper.from_array(np.ones((2, 2), np.float32), "w")))
    assert message in refused(with_card(graph))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (floats(1, np.nan), "holds NaN"),
        (floats(np.nan), "holds NaN"),
        (floats(1, np.nan, dtype="float64"), "holds NaN"),
        (floats(1, np.nan, dtype="float16"), "holds NaN"),
        (helper.make_tensor("w", TensorProto.FLOAT, [2], [1, np.nan]), "holds NaN"),
        (helper.make_tensor("w", TensorProto.DOUBLE, [2], [1, np.nan]), "holds NaN"),
        (TensorProto(data_type=TensorProto.FLOAT16, dims=[2], int32_data=[0, 0x7E00]), "keeps its data in int32_data"),
        (floats(1, -np.inf), "an infinity among 2 values"),
        (floats(np.inf, np.inf, dtype="float16"), "an infinity among 2 values"),
        (TensorProto(data_type=TensorProto.BOOL, dims=[2], raw_data=b"\x01\x02"), "other values than 0 and 1"),
    ],
)
def test_check_tensor_with_bad_values_is_refused(place, tensor, message):
    graph = make_graph()
    place(graph, tensor)
    assert message in refused(with_card(graph))


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (helper.make_attribute("value_float", float("nan")), "'value_float' of Constant holds NaN"),
        (helper.make_attribute("value_floats", [1.0, float("nan")]), "'value_floats' of Constant holds NaN"),
        (helper.make_attribute("value_floats", [1.0, float("inf")]), "an infinity among 2 values"),
        (AttributeProto(name="value_int", type=AttributeProto.INT, i=1, f=float("nan")), "holds NaN"),
    ],
)
def test_check_attribute_with_bad_values_is_refused(attribute, message):
    graph = make_graph()
    graph.graph.node.append(helper.make_node("Constant", [], ["unused"]))
    graph.graph.node[-1].attribute.append(attribute)
    assert message in refused(with_card(graph))


@pytest.mark.parametrize(
    "tensor",
    [
        floats(float("inf")),
        floats(),
        floats(1, 2, dtype="float16"),
        helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2]),
        helper.make_tensor("w", TensorProto.BOOL, [2], [0, 1]),
        helper.make_tensor("w", TensorProto.UINT8, [2], [0, 255]),
        helper.make_tensor("w", TensorProto.UINT64, [1], [2**64 - 1]),
    ],
    ids=["one-inf", "no-values", "float16", "float-list", "bool-list", "uint8-list", "uint64-list"],
)
def test_load_tensor_in_an_allowed_form_is_accepted(tmp_path, tensor):
    graph = make_graph()
    constant(graph, tensor)
    tensor.name = "w"
    weight(graph, tensor)
    assert len(load(tmp_path, with_card(graph)).generate(2)) == 2


# ---------------------------------------------------------------- inputs and outputs


def set_type(value: onnx.ValueInfoProto, dtype: int) -> None:
    value.type.tensor_type.elem_type = dtype


def set_dims(value: onnx.ValueInfoProto, *dims: int | str) -> None:
    value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, dims))


def make_sequence(value: onnx.ValueInfoProto) -> None:
    value.CopyFrom(helper.make_tensor_sequence_value_info(value.name, TensorProto.INT64, ["n"]))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda g: g.input.pop(), "its inputs are"),
        (lambda g: g.input.pop(0), "its inputs are"),
        (lambda g: g.input.add().CopyFrom(helper.make_tensor_value_info("extra", 7, ["n"])), "'extra'"),
        (lambda g: g.input.append(g.input[0]), "its inputs are"),
        (lambda g: setattr(g.input[1], "name", "lable"), "'lable'"),
        (lambda g: g.input.insert(0, g.input.pop()), "its inputs are"),
        (lambda g: set_type(g.input[0], TensorProto.INT32), "('seed', 'int32', ())"),
        (lambda g: set_type(g.input[2], TensorProto.DOUBLE), "('gain', 'float64', ())"),
        (lambda g: set_type(g.input[2], TensorProto.STRING), "('gain', '?', ())"),
        (lambda g: set_dims(g.input[0], 4), "the first dimension of 'seed' is not the free number"),
        (lambda g: set_dims(g.input[0]), "the first dimension of 'seed'"),
        (lambda g: set_dims(g.input[0], "n", 1), "('seed', 'int64', (1,))"),
        (lambda g: make_sequence(g.input[0]), "the first dimension of 'seed'"),
        (lambda g: g.input[0].ClearField("type"), "the first dimension of 'seed'"),
        (
            lambda g: g.initializer.add().CopyFrom(numpy_helper.from_array(np.array([1.0], "f4"), "gain")),
            "'gain' has a default",
        ),
        (lambda g: g.output.pop(), "its outputs are"),
        (lambda g: g.output.append(helper.make_tensor_value_info("scaled", 1, ["n", 8, 8, 1])), "'scaled'"),
        (lambda g: setattr(g.output[0], "name", "contents"), "'contents'"),
        (lambda g: set_type(g.output[0], TensorProto.INT8), "('content', 'int8', (8, 8, 1))"),
        (lambda g: set_dims(g.output[0], "n", 8, 8, 3), "(8, 8, 3)"),
        (lambda g: set_dims(g.output[0], "n", "height", 8, 1), "('free', 8, 1)"),
        (lambda g: set_dims(g.output[0], "n", 64), "its outputs are [('content', 'uint8', (64,))]"),
        (lambda g: set_dims(g.output[0], 4, 8, 8, 1), "the first dimension of 'content'"),
    ],
)
def test_check_signature_unlike_the_card_is_refused(tamper, message):
    graph = make_graph()
    tamper(graph.graph)
    assert message in refused(with_card(graph))


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        ("float32", (8, 8, 1), "an image is uint8"),
        ("uint8", (8, 8), "an image is uint8"),
        ("uint8", (8, 8, 2), "an image is uint8"),
        ("uint8", (0, 8, 1), "cannot be unpacked"),
        ("uint8", (-8, -8, 1), "cannot be unpacked"),
        ("uint8", (2**20, 2**20, 1), "cannot be unpacked"),
        ("uint8", (2**62, 2**62, 1), "cannot be unpacked"),
    ],
)
def test_check_output_that_is_no_image_is_refused(dtype, shape, message):
    graph = make_graph()
    set_dims(graph.graph.output[0], "n", *shape)
    set_type(graph.graph.output[0], {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[dtype])
    golden = replace(make_card(graph).golden, shape=(4, *shape))
    assert message in refused(with_card(graph, output=OutputSpec(dtype=dtype, shape=shape), golden=golden))


def test_check_output_without_the_length_of_the_card_is_refused():
    output = OutputSpec(dtype="uint8", shape=(SIZE, SIZE, 1), length=True)
    assert "('length', 'int64', ())]" in refused(with_card(make_graph(), output=output))


def test_check_card_of_more_controls_is_refused():
    graph = make_graph()
    controls = (*CONTROLS, Control(name="mood", kind="flag", default=False, help="not there"))
    assert "'mood'" in refused(with_card(graph, controls=controls))


# ---------------------------------------------------------------- the graph that the card was written for


def test_check_changed_weight_under_an_old_card_is_refused():
    graph = make_graph()
    card = make_card(graph)
    initializer(graph, "seven").CopyFrom(numpy_helper.from_array(np.array(8, np.int64), "seven"))
    assert "graph_sha256 differs" in refused(to_bytes(graph, card))


def test_check_unknown_fields_added_later_are_refused():
    data = with_card(make_graph())
    assert "graph_sha256 differs" in refused(data + b"\xf8\x3f\x01")  # field 1023


def test_graph_sha256_does_not_depend_on_metadata():
    graph = make_graph()
    bare = graph_sha256(graph)
    graph.metadata_props.add(key="note", value="added later")
    assert graph_sha256(graph) == bare
    assert [(entry.key, entry.value) for entry in graph.metadata_props] == [("note", "added later")]
    graph.graph.node[0].name = "renamed"
    assert graph_sha256(graph) != bare


def test_load_bytes_that_look_like_another_format_are_read_as_onnx(tmp_path):
    """Bytes 4 to 8 saying ORTM make onnxruntime read a flatbuffer, which the checks have never seen."""
    graph = make_graph()
    graph.producer_name = "ORTM is only my name"
    data = with_card(graph)
    assert data[4:8] == b"ORTM"
    assert len(load(tmp_path, data).generate(2)) == 2


@pytest.mark.parametrize("metadata", [{}, {CARD_KEY: "{}"}, {"other": "x"}])
def test_from_bytes_without_a_good_card_is_refused(metadata):
    graph = make_graph()
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=value)
    with pytest.raises(InvalidModel, match=r"no card|follows contract None"):
        OnnxGenerator.from_bytes(to_bytes(graph, None))


# ---------------------------------------------------------------- models that turn bad while loading or running


def rewire(graph: ModelProto, value: str, nodes: list[onnx.NodeProto], weights: dict[str, object]) -> None:
    """Insert nodes that make `value` out of what was `value` before, now called VALUE_before."""
    graph.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    producer = node(graph, value)
    producer.output[0] = f"{value}_before"
    at = list(graph.graph.node).index(producer) + 1
    for offset, inserted in enumerate(nodes):
        graph.graph.node.insert(at + offset, inserted)


# 1 if any item is flipped, else 0: what the traps below are sprung by.
ANY_FLIP = [
    helper.make_node("Cast", ["flip"], ["flip_number"], to=TensorProto.INT64),
    helper.make_node("ReduceMax", ["flip_number"], ["any_flip"], keepdims=0),
]


def endless_model() -> bytes:
    """A model that loops 2^62 times if flip is set."""
    scalar, vector = ([], ["n"])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["state"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, scalar),
            helper.make_tensor_value_info("go", TensorProto.BOOL, scalar),
            helper.make_tensor_value_info("state", TensorProto.INT64, vector),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, scalar),
            helper.make_tensor_value_info("next", TensorProto.INT64, vector),
        ],
    )
    graph = make_graph()
    trips = helper.make_node("Mul", ["any_flip", "for_ever"], ["trips"])
    loop = helper.make_node("Loop", ["trips", "yes", "start_before"], ["start"], body=body)
    rewire(graph, "start", [*ANY_FLIP, trips, loop], {"for_ever": 2**62, "yes": True})
    return with_card(graph)


def test_generate_endless_loop_ends_at_the_deadline_and_the_model_lives_on(tmp_path):
    model = load(tmp_path, endless_model())
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not finish before the deadline"):
            model.generate(4, flip=True, deadline_s=0.5)
        assert 0.4 < time.monotonic() - start < 5
        np.testing.assert_array_equal(model.generate(seeds=[7, 8]).to_numpy(), expected([7, 8]))


def test_generate_absurd_allocation_is_generation_failed_and_the_model_lives_on(tmp_path):
    graph = make_graph()
    nodes = [
        helper.make_node("Mul", ["any_flip", "absurd"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"], value=numpy_helper.from_array(np.zeros(1, np.int64))),
        helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["start_before", "nothing"], ["start"]),
    ]
    rewire(graph, "start", [*ANY_FLIP, *nodes], {"absurd": [ABSURD_COUNT]})
    model = load(tmp_path, with_card(graph))
    with pytest.raises(GenerationFailed, match=r"tampered\.onnx failed while running"):
        model.generate(4, flip=True)
    np.testing.assert_array_equal(model.generate(seeds=[7, 8]).to_numpy(), expected([7, 8]))


@pytest.mark.parametrize("shape", [[-1, 4, 16, 1], [-1, 8, 4, 1], [1, -1, 8, 1]])
def test_generate_content_unlike_the_declared_shape_is_generation_failed(tmp_path, shape):
    graph = make_graph()
    nodes = [
        helper.make_node("Cast", ["any_flip"], ["sprung"], to=TensorProto.BOOL),
        helper.make_node("Where", ["sprung", "lie", "truth"], ["wanted"]),
        helper.make_node("Reshape", ["content_before", "wanted"], ["content"]),
    ]
    rewire(graph, "content", [*ANY_FLIP, *nodes], {"lie": shape, "truth": [-1, SIZE, SIZE, 1]})
    model = load(tmp_path, with_card(graph))
    assert len(model.generate(3)) == 3
    with pytest.raises(GenerationFailed, match=r"for 3 items|failed while running"):
        model.generate(3, flip=True)


def test_load_model_whose_golden_items_fail_is_generation_failed(tmp_path):
    graph = make_graph()
    shape = helper.make_node("Cast", ["seed"], ["as_many_as_the_first_seed_says"], to=TensorProto.INT64)
    rewire(graph, "content", [shape, helper.make_node("Reshape", ["content_before", shape.output[0]], ["content"])], {})
    with pytest.raises(GenerationFailed, match="failed while running"):
        load(tmp_path, with_card(graph))


def work_of_constants(products: int) -> ModelProto:
    """A model with a long chain of large products of constants, which matter only if flip is set."""
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["p0"], value=floats(1e-3))]
    nodes += [helper.make_node("MatMul", [f"p{i}", "p0"], [f"p{i + 1}"]) for i in range(products)]
    nodes += [
        helper.make_node("ReduceSum", [f"p{products}"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["out_then"], to=TensorProto.INT64),
    ]
    out = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("out_then", "out_else")]
    then_branch = helper.make_graph(nodes, "work", [], out[:1])
    else_branch = helper.make_graph([helper.make_node("Identity", ["none"], ["out_else"])], "rest", [], out[1:])
    graph = make_graph()
    chain = [
        helper.make_node("Cast", ["any_flip"], ["sprung"], to=TensorProto.BOOL),
        helper.make_node("If", ["sprung"], ["worked"], then_branch=then_branch, else_branch=else_branch),
        helper.make_node("Add", ["start_before", "worked"], ["start"]),
    ]
    rewire(graph, "start", [*ANY_FLIP, *chain], {"size": [1000, 1000], "none": 0})
    return graph


def test_load_long_work_on_constants_is_left_to_the_run_with_its_deadline(tmp_path):
    path = tmp_path / "work.onnx"
    path.write_bytes(with_card(work_of_constants(5000)))
    assert load_elsewhere(path) == ""
    with pytest.raises(DeadlineExceeded):
        sdk.load(path).generate(1, flip=True, deadline_s=0.3)


def on_constants(nodes: list[onnx.NodeProto], arrays: dict, inside: bool = False) -> ModelProto:
    """A model with nodes that nothing uses, most on constants alone; inside: of a branch of If that is not taken."""
    graph = make_graph()
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    if not inside:
        graph.graph.initializer.extend(weights)
        graph.graph.node.extend(nodes)
        return graph
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    branch = helper.make_graph(nodes, "work", [], [last], weights)
    condition = helper.make_node("Cast", ["start"], ["is_taken"], to=TensorProto.BOOL)
    graph.graph.node.extend(
        [condition, helper.make_node("If", ["is_taken"], ["made"], then_branch=branch, else_branch=branch)]
    )
    return graph


STEPS = np.ones((40, 50), np.int8)
SCALE = np.ones(50, np.float32)
STORED_SMALL = [
    helper.make_node("Cast", ["steps"], ["cast"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["cast", "scale"], ["weight"]),
    helper.make_node("Concat", ["weight", "weight", "cast"], ["joined"], axis=-1),
    helper.make_node("Gemm", ["joined", "joined"], ["table"], transB=1),
]


@pytest.mark.parametrize("inside", [False, True])
def test_weights_that_are_stored_small_are_folded(inside):
    assert may_fold(make_graph().SerializeToString())
    graph = on_constants(STORED_SMALL, {"steps": STEPS, "scale": SCALE}, inside)
    assert may_fold(graph.SerializeToString())


def grown_from_shape(source: str, **part: int) -> ModelProto:
    """A model with as many zeros as the shape of a value says; nothing else of it is on constants."""
    shape = helper.make_node("Shape", [source], ["n"], **part)
    return on_constants([shape, helper.make_node("Expand", ["zero", "n"], ["zeros"])], {"zero": np.zeros((), "f4")})


@pytest.mark.parametrize("part", [{}, {"start": 0}, {"end": 1}, {"start": -1}, {"start": 0, "end": 1}])
def test_what_follows_from_the_number_of_items_is_no_constant(part):
    assert may_fold(grown_from_shape("seed", **part).SerializeToString())


@pytest.mark.parametrize(
    "part",
    [
        {},
        *({"start": start} for start in (-9, -2, 0, 1, 2, 4, 9)),
        *({"end": end} for end in (-9, -1, 0, 1, 4, 9)),
        {"start": 1, "end": 3},
        {"start": 3, "end": 1},
        {"start": -2, "end": -1},
    ],
)
@pytest.mark.parametrize("source", ["start_4d", "places", "mirrored"])
def test_shape_of_what_is_no_input_may_be_a_constant(source, part):
    assert not may_fold(grown_from_shape(source, **part).SerializeToString())


@pytest.mark.parametrize("part", [{"start": 1}, {"end": -1}, {"start": 1, "end": 1}, {"end": 0}])
def test_shape_of_an_input_without_its_free_dimension_may_be_a_constant(part):
    assert not may_fold(grown_from_shape("seed", **part).SerializeToString())


def test_shape_of_an_intermediate_value_is_folded_by_onnxruntime_where_it_is_known():
    """What the decision is about: the size in the hostile file is no constant, and loading makes one of it."""
    data = HOSTILE["shape-of-a-value-from-1"]()
    assert not may_fold(data)
    model = ModelProto.FromString(data)
    for each in list(model.graph.node):
        if each.op_type == "MatMul":
            each.op_type = "Add"  # which takes no time
    with tempfile.TemporaryDirectory() as folder:
        options = session.ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        session.ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        optimized = onnx.load(Path(folder, "optimized.onnx")).graph
    assert not {"Shape", "ConstantOfShape"} & {each.op_type for each in optimized.node}


def test_definitions_that_grow_are_those_of_the_standard():
    """Of the operators with a definition, these make as much as one of their inputs says."""
    growing = {"ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile"}
    found = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        is_ours = schema.domain == "" and schema.since_version < 22 and schema.has_function and len(schema.inputs) > 1
        if is_ours and growing & {each.op_type for each in schema.function_body.node}:
            found.add(schema.name)
    assert found == {"AffineGrid"}  # those of the others depend on the types of their inputs
    assert found < GROWING_DEFINITIONS


@pytest.mark.parametrize("operator", sorted(GROWING_DEFINITIONS))
def test_operator_whose_definition_grows_is_not_folded(operator):
    graph = on_constants([helper.make_node(operator, ["start_4d", "size"], ["large"])], {"size": np.array([9, 9])})
    assert not may_fold(graph.SerializeToString())


def test_cost_of_folding_is_what_products_and_values_take():
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["ab"]),
        helper.make_node("Gemm", ["a", "ab"], ["c"], transA=1, transB=1),
        helper.make_node("Concat", ["c", "c"], ["d"], axis=1),
    ]
    graph = on_constants(nodes, {"a": np.ones((20, 30), "f4"), "b": np.ones((30, 40), "f4")})
    values, products = folding_cost(graph.SerializeToString())
    assert values == 20 * 40 + 30 * 20 + 30 * 40
    assert products == 20 * 30 * 40 + 30 * 20 * 20


LARGE = np.zeros((2**14, 1), np.float32)
TOO_MUCH = {
    "an operator that makes much of little": [helper.make_node("ConstantOfShape", ["size"], ["large"])],
    "an operator that is not known": [helper.make_node("Einsum", ["a", "b"], ["large"], equation="ij,jk->ik")],
    "many values": [helper.make_node("Add", ["a", "b"], ["x"]), helper.make_node("Add", ["x", "a"], ["large"])],
    "many products": [
        helper.make_node("MatMul", ["a", "b"], ["x0"]),
        *(helper.make_node("MatMul", [f"x{i}", "a"], [f"x{i + 1}"]) for i in range(300)),
    ],
    "values that are put together": [
        helper.make_node("Cast", ["a"], ["x0"], to=TensorProto.FLOAT),
        *(helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=0) for i in range(14)),
    ],
    "ranks that do not fit": [helper.make_node("Concat", ["a", "size"], ["large"], axis=0)],
    "no axis": [helper.make_node("Concat", ["a", "a"], ["large"])],
    "shapes that do not fit": [helper.make_node("Add", ["a", "five"], ["large"])],
    "a use before the definition": [
        helper.make_node("Add", ["x", "x"], ["large"]),
        helper.make_node("Cast", ["a"], ["x"], to=TensorProto.FLOAT16),
    ],
    "a list": [
        helper.make_node("Constant", [], ["list"], value_floats=[1.0] * 2**15),
        helper.make_node("Add", ["a", "list"], ["large"]),
    ],
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("nodes", TOO_MUCH.values(), ids=TOO_MUCH)
def test_work_on_constants_that_may_be_much_is_not_folded(nodes, inside):
    arrays = {
        "a": LARGE,
        "b": LARGE.T.copy(),
        "size": np.array([2, 3, 5], np.int64),
        "five": np.zeros((5, 1), np.float32),
    }
    assert not may_fold(on_constants(nodes, arrays, inside).SerializeToString())


@pytest.mark.parametrize("fold", [True, False])
def test_load_weights_of_float16_that_a_branch_uses(tmp_path, fold):
    product = [helper.make_node("MatMul", ["weight", "weight"], ["product"])]
    made = helper.make_tensor_value_info("product", TensorProto.FLOAT, [3, 3])
    branch = helper.make_graph(product, "branch", [], [made])
    chain = [
        helper.make_node("Cast", ["half"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["any_flip"], ["is_taken"], to=TensorProto.BOOL),
        helper.make_node("If", ["is_taken"], ["made"], then_branch=branch, else_branch=branch),
        helper.make_node("ReduceSum", ["made"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["scaled_before", "sum"], ["scaled"]),
    ]
    graph = make_graph()
    rewire(graph, "scaled", [*ANY_FLIP, *chain], {"half": np.eye(3, dtype=np.float16)})
    if not fold:
        graph.graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "two"))
        graph.graph.node.append(helper.make_node("ConstantOfShape", ["two"], ["zeros"]))
    assert may_fold(graph.SerializeToString()) is fold
    golden = make_card(graph).golden
    brighter = Golden.of(np.array(golden.seeds), {}, expected(golden.seeds, gain=3)).content
    assert len(load(tmp_path, with_card(graph, golden=replace(golden, content=brighter))).generate(2)) == 2


def test_load_folds_only_what_may_be_folded(tmp_path, monkeypatch):
    disabled = []
    whole = session.ort.InferenceSession

    def seen(*args, disabled_optimizers, **options):
        disabled.append(disabled_optimizers)
        return whole(*args, disabled_optimizers=disabled_optimizers, **options)

    monkeypatch.setattr(session.ort, "InferenceSession", seen)
    for again in range(2):  # the second time, the verdict of the cache says it
        for data in (with_card(make_graph()), with_card(work_of_constants(1))):
            load(tmp_path, data)
        assert disabled[2 * again :] == [[], session._NOT_FOLDED]


def test_load_too_long_is_cancelled(tmp_path, monkeypatch):
    graph = make_graph()
    graph.graph.node.extend(helper.make_node("Add", ["start", "seed"], [f"x{i}"]) for i in range(3000))
    rewire(graph, "values", [helper.make_node("Identity", ["values_before"], ["values"])], {})
    data = with_card(graph)
    monkeypatch.setattr(session, "_LOAD_DEADLINE_S", 0.0)
    with pytest.raises(InvalidModel, match="within 0 seconds"):
        load(tmp_path, data)
    monkeypatch.undo()
    assert len(load(tmp_path, data).generate(2)) == 2


def test_check_of_a_megabyte_is_quick():
    graph = make_graph()
    values = np.random.default_rng(0).standard_normal((30, 10_000)).astype(np.float32)
    graph.graph.initializer.extend(numpy_helper.from_array(row, f"w{i}") for i, row in enumerate(values))
    graph.graph.node.extend(helper.make_node("Identity", ["seed"], [f"x{i}"]) for i in range(1000))
    data = with_card(graph)
    assert len(data) > 1_200_000

    def seconds() -> float:
        start = time.perf_counter()
        check_model(data, "large.onnx")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.04


def test_golden_of_another_machine_is_not_refused(tmp_path):
    graph = make_graph()
    feeds = {control.name: np.full(4, control.default, control.dtype) for control in CONTROLS}
    content = expected(np.arange(4))
    content[0, 0, 0] += 1
    golden = Golden.of(np.arange(4), feeds, content)
    assert len(load(tmp_path, with_card(graph, golden=golden)).generate(2)) == 2


# ---------------------------------------------------------------- measures


def measure_with(graph: ModelProto, **changes) -> bytes:
    return to_bytes(graph, make_measure_card(graph, **changes))


def edited_measure(**changes) -> bytes:
    graph = make_measure_graph()
    values = json.loads(make_measure_card(graph).to_json())
    return to_bytes(graph, json.dumps({**values, **changes}))


def test_tiny_measure_untouched_is_accepted(tmp_path):
    path = write_tiny_measure(tmp_path / "measure.onnx")
    assert check_model(path.read_bytes(), path.name).kind == "measure"
    np.testing.assert_allclose(sdk.measure(path, contents(3)), expected_value(contents(3)), rtol=1e-5, atol=1e-5)


def test_check_measure_truncated_or_damaged_is_refused_or_harmless():
    random = np.random.default_rng(2)
    data = measure_with(make_measure_graph())
    for length in range(1, len(data), 61):
        refused(data[:length])
    for _ in range(500):
        at = int(random.integers(len(data)))
        try:
            check_model(data[:at] + bytes([data[at] ^ 1 << int(random.integers(8))]) + data[at + 1 :], "damaged.onnx")
        except InvalidModel:
            continue


@pytest.mark.parametrize("operator", ["RandomNormalLike", "Bernoulli"])
def test_check_measure_with_a_random_operator_is_refused(operator):
    graph = make_measure_graph()
    graph.graph.node.append(helper.make_node(operator, ["pixels"], ["noise"]))
    assert f"it uses {operator}" in refused(measure_with(graph))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda g: set_dims(g.input[0], "n", *SHAPE[:2], 3), "its inputs are"),
        (lambda g: set_type(g.input[0], TensorProto.FLOAT), "its inputs are"),
        (lambda g: setattr(g.input[0], "name", "pixels_in"), "its inputs are"),
        (lambda g: g.input.append(helper.make_tensor_value_info("seed", TensorProto.INT64, ["n"])), "its inputs are"),
        (lambda g: set_dims(g.input[0], 1, *SHAPE), "the first dimension of 'content' is not the free number"),
        (lambda g: set_dims(g.output[0], "n", K + 1), "its outputs are"),
        (lambda g: set_type(g.output[0], TensorProto.DOUBLE), "its outputs are"),
        (lambda g: setattr(g.output[0], "name", "content"), "its outputs are"),
        (
            lambda g: g.initializer.append(numpy_helper.from_array(np.zeros((1, *SHAPE), np.uint8), "content")),
            "default",
        ),
        (lambda g: setattr(g.initializer[0], "raw_data", g.initializer[0].raw_data[:-4]), "its shape (64, 3) says"),
    ],
)
def test_check_measure_unlike_its_card_is_refused(tamper, message):
    graph = make_measure_graph()
    tamper(graph.graph)
    assert message in refused(measure_with(graph))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "model"}, "a measure says what its input is, and a model has none"),
        ({"input": None}, "a measure says what its input is, and a model has none"),
        ({"input": {"dtype": "float32", "shape": [8, 8, 1]}}, "an image is uint8"),
        ({"input": {"dtype": "uint8", "shape": [64]}}, "an image is uint8"),
        ({"input": {"dtype": "uint8", "shape": [8, 8, 1], "length": True}}, "its inputs are"),
        ({"output": {"dtype": "uint8", "shape": [3]}}, "the value of a measure is float32 (K,)"),
        ({"output": {"dtype": "float32", "shape": [3, 1]}}, "the value of a measure is float32 (K,)"),
        ({"output": {"dtype": "float32", "shape": [3], "length": True}}, "the value of a measure is float32 (K,)"),
        ({"output": {"dtype": "float32", "shape": [4]}}, "its outputs are"),
        ({"graph_sha256": "0" * 64}, "graph_sha256 differs"),
    ],
)
def test_check_measure_card_tampered_is_refused(changes, message):
    assert message in refused(edited_measure(**changes))


def packed(array) -> dict:
    return {"shape": list(array.shape), "data": base64.b64encode(zlib.compress(array.tobytes())).decode()}


@pytest.mark.parametrize(
    ("golden", "message"),
    [
        (None, "no golden items of a measure"),
        ({"seeds": [1, 2, 3, 4]}, "no golden items of a measure"),
        ({"controls": {}}, "no golden items of a measure"),
        ({"controls": {"content": [1, 2]}}, "not 1 to 16 items, packed"),
        ({"controls": {"content": packed(contents(17))}}, "not 1 to 16 items, packed"),
        ({"controls": {"content": packed(contents(0))}}, "not 1 to 16 items, packed"),
        ({"controls": {"content": packed(contents(3))}}, "its golden items are (3, 8, 8, 1) and (4, 3)"),
        ({"controls": {"content": packed(contents(4)[:, :4])}}, "its golden items are (4, 4, 8, 1)"),
        ({"controls": {"content": {**packed(contents(4)), "data": "%%%"}}}, "cannot be unpacked"),
        ({"controls": {"content": {**packed(contents(4)), "data": packed(contents(5))["data"]}}}, "does not hold 256"),
        ({"controls": {"content": {"shape": [], "data": ""}}}, "not 1 to 16 items, packed"),
        ({"shape": [4, 2]}, "its golden items are"),
        ({"content": ""}, "cannot be unpacked"),
        ({"content": packed(np.full((4, K), np.nan, np.float32))["data"]}, "the golden value holds NaN"),
        ({"content": packed(np.full((4, K), np.inf, np.float32))["data"]}, "the golden value holds an infinity"),
    ],
)
def test_check_measure_golden_tampered_is_refused(golden, message):
    values = json.loads(make_measure_card(make_measure_graph()).to_json())["golden"]
    assert message in refused(edited_measure(golden=golden and {**values, **golden}))
