"""Elements of a data set as written: text, numbers and integers, without pydicom's conversions.

pydicom's own conversion of a broken value raises errors that quote the value; here a broken value is a fault that names
the element only.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

# PS3.5 6.2: a decimal string holds digits, sign, point and exponent; 'nan', 'inf' and '1_0' are Python's, not DICOM's.
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "US or SS": "H"}
_UID = re.compile(r"[0-9.]{1,64}")


class ElementFaultError(Exception):
    """An element that does not say what it must; holds a reason code and a text without any value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Raw:
    """One element's value field as bytes, with what is needed to read it."""

    value: bytes
    vr: str
    little: bool


def raw_element(ds: Dataset, keyword: str) -> Raw | None:
    """The element's value field, or None where it is absent."""
    tag = _tag(keyword)
    element = ds._dict.get(tag)  # as `get_item`, less ten microseconds each of some fifty times a file
    if element is None:
        return None
    if not isinstance(element, RawDataElement):
        return _converted(element.VR, element.value)
    return Raw(bytes(element.value or b""), _vr(element.VR, tag), element.is_little_endian)


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(tag_for_keyword(keyword))  # type: ignore[arg-type]


def _converted(vr: str, value: object) -> Raw | None:
    """An integer or text that pydicom turned from bytes while it parsed a sequence beside it; None for all else."""
    if vr in _BINARY and isinstance(value, int | float):
        return Raw(struct.pack("<" + _BINARY[vr], value), vr, True)
    return Raw(value.encode("latin-1", "replace"), vr, True) if isinstance(value, str) else None


def _vr(written: str | None, tag: BaseTag) -> str:
    return dictionary_VR(tag) if written in (None, "UN") else written


def dictionary_vr(tag: int) -> str:
    """VR of a standard element in the dictionary (PS3.6)."""
    return dictionary_VR(tag)


def text(ds: Dataset, keyword: str) -> str | None:
    """Value as text less padding, bytes taken one by one (Latin-1, reversible); None where absent."""
    raw = raw_element(ds, keyword)
    return None if raw is None else text_of(raw)


def text_of(raw: Raw) -> str:
    """The same of an element that was found."""
    return raw.value.decode("latin-1").strip(" \0")


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """All values of a backslash-separated text, upper case, less padding; empty where absent."""
    whole = text(ds, keyword)
    return tuple(part.strip(" \0").upper() for part in whole.split("\\")) if whole else ()


def integer(ds: Dataset, keyword: str) -> int | None:
    """One integer from a US, UL, SS, SL or IS element; None where absent, empty or no integer."""
    value = scalar(ds, keyword)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def scalar(ds: Dataset, keyword: str) -> float | str | None:
    """First value as a number where it is one, else as text; None where absent or empty."""
    return scalar_of(raw_element(ds, keyword))


def scalar_of(raw: Raw | None) -> float | str | None:
    """The same of an element that was found, or not."""
    if raw is None or (not raw.value.strip(b" \0") and raw.vr not in _BINARY):
        return None
    if raw.vr in _BINARY:
        code = _BINARY[raw.vr]
        size = struct.calcsize("<" + code)
        if len(raw.value) < size:
            return None
        return float(struct.unpack(("<" if raw.little else ">") + code, raw.value[:size])[0])
    first = raw.value.decode("latin-1").split("\\")[0].strip(" \0")
    return float(first) if _DECIMAL.fullmatch(first) and math.isfinite(float(first)) else first


@dataclass(frozen=True)
class Decimals:
    """Numbers of a decimal-string element and the unit of the last digit written in any of them."""

    values: tuple[float, ...]
    unit: float


def decimals(ds: Dataset, keyword: str, count: int, missing: str, bad: str = "bad-number") -> Decimals:
    """Exactly `count` finite numbers. Raises ElementFaultError: `missing` where absent, empty or of another count."""
    return decimals_of(raw_element(ds, keyword), keyword, count, missing, bad)


def decimals_of(raw: Raw | None, keyword: str, count: int, missing: str, bad: str = "bad-number") -> Decimals:
    """The same of an element that was found, or not."""
    if raw is None or not raw.value.strip(b" \0"):
        raise ElementFaultError(missing, f"{keyword} is missing")
    if raw.vr in ("FL", "FD"):
        return _binary_decimals(raw, keyword, count, missing, bad)
    parts = [part.strip(" \0") for part in raw.value.decode("latin-1").split("\\")]
    if not all(_DECIMAL.fullmatch(part) for part in parts):
        raise ElementFaultError(bad, f"{keyword} holds a value that is not a number")
    if len(parts) != count:
        raise ElementFaultError(missing, f"{keyword} has {len(parts)} values, not {count}")
    values = tuple(float(part) for part in parts)
    if not all(math.isfinite(value) for value in values):
        raise ElementFaultError(bad, f"{keyword} holds a number that is not finite")
    return Decimals(values, min(_last_digit(part) for part in parts))


def _binary_decimals(raw: Raw, keyword: str, count: int, missing: str, bad: str) -> Decimals:
    code = _BINARY[raw.vr]
    n = len(raw.value) // struct.calcsize("<" + code)
    if n != count:
        raise ElementFaultError(missing, f"{keyword} has {n} values, not {count}")
    values = struct.unpack(("<" if raw.little else ">") + code * n, raw.value[: n * struct.calcsize("<" + code)])
    if not all(math.isfinite(value) for value in values):
        raise ElementFaultError(bad, f"{keyword} holds a number that is not finite")
    return Decimals(tuple(values), 0.0)


def _last_digit(number: str) -> float:
    """Unit of the last digit written: 0.1 for -12.3, 0.01 for 1.23E+01 x 10 = 0.1."""
    mantissa, _, exponent = number.lower().partition("e")
    places = len(mantissa.partition(".")[2])
    power = int(exponent or 0) - places
    return 10.0**power if -300 < power < 300 else 0.0


def is_uid(value: str | None) -> bool:
    """Whether a text is digits and dots, 1 to 64 of them (PS3.5 9.1; leading zeros are common and harmless)."""
    return value is not None and _UID.fullmatch(value) is not None


def has(ds: Dataset, keyword: str) -> bool:
    """Whether the element is there, whatever it holds."""
    return _tag(keyword) in ds._dict


def items(ds: Dataset | None, keyword: str) -> list[Dataset]:
    """Items of a sequence; empty where absent, or where what stands there cannot be read as a sequence."""
    if ds is None:
        return []
    tag = _tag(keyword)
    if tag not in ds._dict:
        return []
    value = ds[tag].value
    return list(value) if value else []


def truncated_elements(ds: Dataset) -> Iterator[int]:
    """Tags of elements that hold fewer bytes than they declare: the file ends within them."""
    for tag, element in list(ds.items()):
        if isinstance(element, RawDataElement) and element.length != 0xFFFFFFFF:
            value = element.value
            if isinstance(value, bytes | type(None)) and len(value or b"") < element.length:
                yield int(tag)
