"""Row conditions: pandas query expressions, checked before any work and kept to comparisons of columns."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ctpipe.errors import NotThereError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd, ast.BinOp,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt,
    ast.GtE, ast.In, ast.NotIn, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple,
)  # fmt: skip
_CURE = "write comparisons of columns, such as: label == 'liver' and fraction_lesion > 0.1"


def checked(where: str, columns: list[str], classes: Mapping[int, str],
            label_columns: Collection[str] = ("label",)) -> str:
    """`where` as `select` takes it; NotThereError names an unknown column or class and what exists.

    Allowed are comparisons, arithmetic, and/or/not/in, numbers and texts: a recipe comes with a model from elsewhere,
    so no call, attribute or variable of ours is in its reach. `label` may be compared with class names
    (`label == "liver"`, "background" is 0), and so may the other `label_columns`. A column whose name is no Python name
    is written in backticks.
    """
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        quoted[f"_quoted_{len(quoted)}"] = match[1]
        return f"_quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(_booleans(re.sub(r"`([^`]+)`", stand_in, " ".join(where.splitlines()).strip())), mode="eval")
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise UsageError(f"{where!r} is no condition on rows", _CURE) from error
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise UsageError(f"{where!r}: {type(node).__name__} is not allowed in a condition on rows", _CURE)
        if isinstance(node, ast.Name) and quoted.get(node.id, node.id) not in columns:
            raise NotThereError(f"{where!r}: the table has no column {quoted.get(node.id, node.id)!r}",
                                f"its columns are {', '.join(columns)}")
    numbers = {"background": 0} | {name: number for number, name in classes.items()}
    tree = _Names(numbers, where, label_columns).visit(tree)
    text = ast.unparse(ast.fix_missing_locations(tree))
    return re.sub(r"_quoted_\d+", lambda match: f"`{quoted[match[0]]}`", text)


def select(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """Rows of `frame` for which a `checked` condition holds, in their order; UsageError where it is no truth value."""
    chosen = evaluated(frame, condition)
    if getattr(chosen, "dtype", None) != np.bool_ or not names_in(condition):
        raise UsageError(f"{condition!r} is not true or false for a row", _CURE)
    return frame[chosen.to_numpy()]


def evaluated(frame: pd.DataFrame, expression: str) -> pd.Series:
    """The value of a `checked` expression for every row.

    Whole numbers are computed in 64 bits: z * 1000 of the int16 that is stored would overflow, silently.
    """
    import pandas as pd
    used = frame[names_in(expression)]
    wide = used.astype({name: np.int64 for name, kind in used.dtypes.items() if getattr(kind, "kind", "") in "iu"})
    try:
        value = wide.eval(expression, engine="python", local_dict={}, global_dict={})
    except (TypeError, ValueError, NotImplementedError, SyntaxError) as error:
        raise UsageError(f"{expression!r} cannot be evaluated: {error}", _CURE) from error
    return value if isinstance(value, pd.Series) else pd.Series(np.full(len(frame), value), frame.index)


def names_in(expression: str) -> list[str]:
    """The columns that a `checked` expression reads, each once."""
    quoted = re.findall(r"`([^`]+)`", expression)
    tree = ast.parse(re.sub(r"`[^`]+`", "0", expression), mode="eval")
    return list(dict.fromkeys([*quoted, *(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))]))


def _booleans(text: str) -> str:
    """& and | as `and` and `or`: pandas gives them that meaning and precedence in a query."""
    words = {"&": " and ", "|": " or "}
    found = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.string in words]
    for token in reversed(found):
        text = text[:token.start[1]] + words[token.string] + text[token.end[1]:]
    return text


class _Names(ast.NodeTransformer):
    """Puts the integer of a class where `label` is compared with its name."""

    def __init__(self, numbers: dict[str, int], where: str, columns: Collection[str]) -> None:
        self.numbers, self.where, self.columns = numbers, where, columns

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Name) and side.id in self.columns for side in sides):
            for part in (part for side in sides for part in ast.walk(side)):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    if part.value not in self.numbers:
                        raise NotThereError(f"{self.where!r}: the table has no class {part.value!r}",
                                            f"its classes are {', '.join(self.numbers)}")
                    part.value = self.numbers[part.value]
        return node
