"""ONNX: one file that holds the random numbers, the network and the conversion to content."""

from collections.abc import Callable

from aigc_sdk import ExporterSpec, hookimpl


@hookimpl
def aigc_register_exporters(register: Callable[[ExporterSpec], None]) -> None:
    """Declare the format `onnx`."""
    register(
        ExporterSpec(
            name="onnx",
            target="aigc_onnx.exporter:OnnxExporter",
            summary="one ONNX file of the model contract, verified against torch",
            extra="train",
            suffix=".onnx",
        )
    )
