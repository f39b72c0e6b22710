"""The stages, wired: the only place that knows both Dask and the stages."""

from ctpipe.pipeline.case import write_case_page
from ctpipe.pipeline.evaluate import evaluate
from ctpipe.pipeline.infer import infer
from ctpipe.pipeline.ingest import check, ingest
from ctpipe.pipeline.reports import EvaluateReport, InferReport, IngestReport, TrainReport, check_json
from ctpipe.pipeline.train import train, train_model

__all__ = ["EvaluateReport", "InferReport", "IngestReport", "TrainReport", "check", "check_json", "evaluate", "infer",
           "ingest", "train", "train_model", "write_case_page"]  # fmt: skip
