"""main(argv) -> exit code; entry() is the console script."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path

from ctpipe.cli.parser import parse
from ctpipe.errors import CtpipeError


def entry() -> None:
    """The console script: exits with the code of `main`, at once and without a traceback when a pipe is closed."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 a bug, 2 usage, 3 partly refused, 4 no memory or disk, 130 interrupted (DESIGN 8)."""
    args = parse(argv)
    try:
        return int(args.run(args))
    except CtpipeError as error:
        print(f"ctpipe: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"  {_one_line(note)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ctpipe: interrupted; what is finished is kept, run the same command to go on", file=sys.stderr)
        return 130
    except MemoryError:
        print("ctpipe: out of memory; cure: run on fewer workers, or on a machine with more memory", file=sys.stderr)
        return 4
    except BrokenPipeError:
        raise
    except Exception as error:  # a bug: say so in one line, keep the traceback for a report
        where = _save_traceback(error)
        print(f"ctpipe: a bug: {type(error).__name__}; cure: report it with {where}", file=sys.stderr)
        return 1


def _one_line(text: str) -> str:
    """Free text without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def _save_traceback(error: BaseException) -> Path:
    """Where an unforeseen error came from, in a new private file: kinds and lines of code, no texts.

    The text of such an error may quote a file, and the report is made to be sent to someone (RELIABILITY P3).
    """
    handle, name = tempfile.mkstemp(prefix="ctpipe-bug-", suffix=".txt", text=True)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        at: BaseException | None = error
        while at is not None:
            file.write(f"{type(at).__name__} (its text is left out: it may hold text from a file)\n")
            file.writelines(traceback.format_list(traceback.extract_tb(at.__traceback__)))
            at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return Path(name)
