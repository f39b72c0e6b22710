"""The user's own settings of the review room: review.toml in the folder of ctpipe's configuration.

::

    reviewer = "reader-1"     # a pseudonym: it is stored with every decision and correction
    sort = "due"              # what the worklist begins with
    blinded = false           # no truth, no Dice, nothing of other reviewers

napari 0.9 has no place for the settings of a plugin (npe2 can declare them, napari shows and stores none), so they are
a file. An option of the command line goes before it.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ctpipe.errors import UsageError
from ctpipe.review.case_making import checked_reviewer
from ctpipe.review.cases import Order, order_named

FILE = "review.toml"


@dataclass(frozen=True)
class ReviewSettings:
    """What review.toml says; the defaults where it says nothing."""

    reviewer: str = "reader"
    sort: str = str(Order.DUE)
    blinded: bool = False


def settings_path() -> Path:
    """CTPIPE_REVIEW where it is set, else review.toml beside the pseudonym key."""
    from platformdirs import user_config_path

    named = os.environ.get("CTPIPE_REVIEW")
    return Path(named).expanduser() if named else user_config_path("ctpipe") / FILE


def load_settings(path: Path | None = None) -> ReviewSettings:
    """The settings of the file (None: `settings_path`), the defaults where there is none.

    Raises UsageError that names a key that is unknown or of another type, or a file that is no TOML.
    """
    path = path or settings_path()
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return ReviewSettings()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as TOML", "mend or remove it") from error
    kinds = {"reviewer": str, "sort": str, "blinded": bool}
    for key, value in found.items():
        if key not in kinds or not isinstance(value, kinds[key]):
            wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
            raise UsageError(f"{path}: {key!r} is unknown or of another type", f"it may hold: {wanted}")
    made = ReviewSettings(**found)
    checked_reviewer(made.reviewer)
    order_named(made.sort)
    return made
