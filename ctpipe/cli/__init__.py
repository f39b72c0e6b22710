"""The command line: parse, one call, one table or one JSON document, an exit code."""

from ctpipe.cli.main import entry, main

__all__ = ["entry", "main"]
