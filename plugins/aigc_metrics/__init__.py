"""The metrics, and the measures that they look at contents with."""

from collections.abc import Callable

from aigc_sdk import MeasureSpec, hookimpl


@hookimpl
def aigc_register_measures(register: Callable[[MeasureSpec], None]) -> None:
    """Declare the feature extractor for images of any size."""
    register(
        MeasureSpec(
            name="efficientnet-lite0",
            target="aigc_metrics.efficientnet:measure_for",
            summary="1280 features of images of any size, of a network trained on ImageNet; made on first use",
            license="Apache-2.0",
            extra="evaluate",
        )
    )
