"""What a person looks at: the picture and the page of a case."""

from ctpipe.report.html import case_html
from ctpipe.report.png import case_png

__all__ = ["case_html", "case_png"]
