"""The stages, wired: the only place that knows both Dask and the stages.

Names are resolved at first use: judging DICOM must not wait until torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctpipe.pipeline.case import write_case_page
    from ctpipe.pipeline.comparing import CompareReport, compare
    from ctpipe.pipeline.explaining import Explanation, explain
    from ctpipe.pipeline.exporting import Exported, ExportReport, export, export_all
    from ctpipe.pipeline.fitting import train, train_model
    from ctpipe.pipeline.judging import evaluate
    from ctpipe.pipeline.post_processing import PostReport, PostRun, post_process
    from ctpipe.pipeline.predicting import infer, uncertainty_of
    from ctpipe.pipeline.region import RegionLabels, RegionModel
    from ctpipe.pipeline.reports import EvaluateReport, InferReport, IngestReport, TrainReport, check_json
    from ctpipe.pipeline.tables import save_table
    from ctpipe.pipeline.taking import check, ingest

# Homes have other names than the functions in them would need, since an imported module becomes an attribute here.
_HOMES = {
    "CompareReport": "comparing",
    "EvaluateReport": "reports",
    "Explanation": "explaining",
    "ExportReport": "exporting",
    "Exported": "exporting",
    "InferReport": "reports",
    "IngestReport": "reports",
    "PostReport": "post_processing",
    "PostRun": "post_processing",
    "RegionLabels": "region",
    "RegionModel": "region",
    "TrainReport": "reports",
    "check": "taking",
    "check_json": "reports",
    "compare": "comparing",
    "evaluate": "judging",
    "explain": "explaining",
    "export": "exporting",
    "export_all": "exporting",
    "infer": "predicting",
    "ingest": "taking",
    "post_process": "post_processing",
    "save_table": "tables",
    "train": "fitting",
    "train_model": "fitting",
    "uncertainty_of": "predicting",
    "write_case_page": "case",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "EvaluateReport", "Explanation", "InferReport", "IngestReport", "PostReport", "PostRun", "RegionLabels",
    "RegionModel", "TrainReport", "check", "check_json", "evaluate", "explain", "infer", "ingest", "post_process",
    "save_table", "train", "train_model", "uncertainty_of", "write_case_page",
    "CompareReport", "ExportReport", "Exported", "compare", "export", "export_all",
]  # fmt: skip
