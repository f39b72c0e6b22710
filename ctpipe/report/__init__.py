"""What a person looks at: the pictures and the pages of a case."""

from ctpipe.report.case import labels_html
from ctpipe.report.html import case_html
from ctpipe.report.png import case_png
from ctpipe.report.solid import Body, smoothed, solid_png

__all__ = ["Body", "case_html", "case_png", "labels_html", "smoothed", "solid_png"]
