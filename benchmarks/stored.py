"""The matrices that a model file of texts holds; what else is kept of its training are vectors, in benchmarks/runs."""

from pathlib import Path

import onnx
import torch
from onnx.reference import ReferenceEvaluator


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    """Return the matrices by their names in the family, float32, whatever they are stored in.

    Args:
        path: of a model file; the tasks of one model hold the same weights.
    """
    graph = onnx.load(path).graph
    # Those that are stored in parts, a number of bits and a scale, are put together by the first nodes.
    nodes = [node for node in graph.node if node.op_type in ("Cast", "Mul") and node.output[0].startswith("network.")]
    whole = {node.output[0] for node in nodes if not node.output[0].endswith(".steps")}
    made = {}
    if whole:
        outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sorted(whole)]
        part = onnx.helper.make_graph(nodes, "weights", [], outputs, list(graph.initializer))
        model = onnx.helper.make_model(part, opset_imports=[onnx.helper.make_opsetid("", 20)])
        made = dict(zip(sorted(whole), ReferenceEvaluator(model).run(None, {}), strict=True))
    plain = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    return {name: torch.tensor(array) for name, array in (plain | made).items() if name.startswith("network.")}
