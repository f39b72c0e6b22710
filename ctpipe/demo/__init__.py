"""The whole line on synthetic patients: DICOM, store, table, training, inference, evaluation, pictures."""

from ctpipe.demo.line import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
