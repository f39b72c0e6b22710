"""The error tree. Each error says in one line what, where, and the cure.

::

    CtpipeError                exit 3
    ├── UsageError             exit 2   a wrong argument
    │   └── NotThereError      exit 2   a store, series, run, class or model that is not there
    ├── InputError             exit 3   input that was refused whole
    ├── StoreFaultError        exit 3   committed data that is rotten or missing
    ├── StoreBusyError         exit 3   another writer holds the lease
    ├── RunError               exit 3   a run that failed (NaN in the input, a worker lost too often)
    └── BudgetError            exit 4   not enough memory, disk or budget
"""

from __future__ import annotations


class CtpipeError(Exception):
    """Root of every error that ctpipe raises.

    problem: what is wrong and where, never with a value taken from a DICOM file (it may name a patient).
    cure: what the user can do about it.
    """

    exit_code = 3

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem, cure)  # args must rebuild the error: workers send it pickled
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.problem}; cure: {self.cure}"


class UsageError(CtpipeError):
    """A wrong argument or combination of arguments."""

    exit_code = 2


class NotThereError(UsageError):
    """A store, series, run, class, recipe or model that does not exist."""


class InputError(CtpipeError):
    """Input that was refused whole."""


class StoreFaultError(CtpipeError):
    """Committed data that is rotten, missing or changed."""


class StoreBusyError(CtpipeError):
    """Another writer works on the same target."""


class RunError(CtpipeError):
    """A run that cannot end in a right volume."""


class BudgetError(CtpipeError):
    """Not enough memory, disk or budget; the message says how much is missing."""

    exit_code = 4
