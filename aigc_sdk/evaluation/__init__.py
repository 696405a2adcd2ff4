"""Stage 4, evaluation: measures contents, runs the metrics on generated and real ones, and makes the report."""

from aigc_sdk.evaluation.extractors import measure
from aigc_sdk.evaluation.report import Report
from aigc_sdk.evaluation.runner import evaluate

__all__ = ["Report", "evaluate", "measure"]
