"""The ONNX exporter: convert, verify, write."""

from dataclasses import replace
from pathlib import Path

import onnx

from aigc_onnx.convert import OPSET, convert
from aigc_onnx.measure import export_measure
from aigc_onnx.verify import check_independence, check_streaming, compare_with_eager
from aigc_sdk.card import CARD_KEY, Golden, ModelCard
from aigc_sdk.errors import ExportFailed, InvalidModel
from aigc_sdk.exporter import Check, Exportable, Exporter, ExportReport
from aigc_sdk.files import atomic_pair
from aigc_sdk.generator import parts_of
from aigc_sdk.kinds import kind_of
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.runtime.loading import made_by
from aigc_sdk.runtime.safety import MAX_IR_VERSION, check_model, graph_sha256, trust
from aigc_sdk.testing import example_feeds

GOLDEN_ITEMS = 4
MEASURED_ITEMS = 64


class OnnxExporter(Exporter):
    """Writes NAME.onnx with the card inside, and the same card as NAME.card.json for runtimes that show none."""

    def export(self, model: Exportable, path: Path) -> ExportReport:
        """See `Exporter.export`."""
        card = model.eager.card
        if card.kind == "measure":
            assert model.content is not None
            seeds, feeds = example_feeds(model.content.card.controls, MEASURED_ITEMS, 2013)
            return export_measure(model.sampler, card, path, model.content.run(seeds, feeds)["content"])
        graph = convert(model.sampler, card)
        if graph.ir_version > MAX_IR_VERSION:
            graph.ir_version = MAX_IR_VERSION
        card = replace(card, graph_sha256=graph_sha256(graph))

        # The golden items are made by the bare graph; only then is the card complete.
        golden = _make_golden(_with_card(graph, card), card)
        card = replace(card, golden=golden)
        data = _with_card(graph, card)

        checks = [_check_file(data, path), *_verify(model, data)]
        card_path = path.with_suffix(".card.json")
        # Both are whole before one takes its place: a full disk leaves them as they were.
        with atomic_pair(card_path, path, asked=path) as (card_file, file):
            file.write_bytes(data)
            card_file.write_bytes(card.to_json().encode())
        trust(data)
        return ExportReport(path, tuple(checks))


def _with_card(graph: onnx.ModelProto, card: ModelCard) -> bytes:
    graph.ClearField("metadata_props")
    graph.metadata_props.add(key=CARD_KEY, value=card.to_json())
    return bytes(graph.SerializeToString(deterministic=True))


def _make_golden(data: bytes, card: ModelCard) -> Golden:
    seeds, controls = example_feeds(card.controls, GOLDEN_ITEMS, 2013)
    # Item 0 is what a caller gets who asks for nothing in particular.
    for control in card.controls:
        if control.default is not None:
            kind = kind_of(control)
            controls[control.name][0] = kind.padding if kind.is_ragged else control.default
    model = OnnxGenerator.from_bytes(data)
    outputs = model.run(seeds, controls)
    parts = {part.name: outputs[f"content.{part.name}"] for part in parts_of(card)}
    return Golden.of(seeds, controls, outputs["content"], parts, made_by(model))


def _check_file(data: bytes, path: Path) -> Check:
    """Hold the file to the rules that every loader holds it to."""
    try:
        check_model(data, path.name)
    except InvalidModel as error:
        raise ExportFailed(f"The exported file breaks the contract: {error}") from error
    return Check("contract", f"opset {OPSET}, standard operators only, {len(data) / 1e6:.2f} MB")


def _verify(model: Exportable, data: bytes) -> list[Check]:
    exported = OnnxGenerator.from_bytes(data)
    likeness = exported.check_golden()
    if not likeness.passed:
        raise ExportFailed(f"The file does not make its own golden items again: {likeness.measured}.")
    # In this order: eager torch runs in other batches, where an item that depends on its neighbours differs as well.
    checks = [check_independence(data, exported.card), compare_with_eager(model.eager, exported)]
    return [*checks, check_streaming(exported)] if exported.card.state else checks
