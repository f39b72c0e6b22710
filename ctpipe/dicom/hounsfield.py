"""Stored values of one plane -> Hounsfield units of the volume's type, exactly or not at all (policy, rule 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.pixels import INT16, PADDING_HU, Rescale


class NotInTypeError(Exception):
    """A value of the plane that the volume's type does not hold exactly."""


def into_hu(stored: NDArray[Any], rescale: Rescale, out: NDArray[Any]) -> int:
    """HU of a plane of stored values into `out` (rows, columns; int16 or float32); the number of padded voxels.

    Padding becomes -1024. float32 is the float64 value rounded once. Raises NotInTypeError where int16 would have to
    round, wrap or clip.
    """
    padded = _padded(stored, rescale)
    if out.dtype != np.int16:
        hu, n_padded = rescale.to_hu(stored)
        out[...] = hu
        return n_padded
    if not (_whole(rescale) and _by_integers(stored, rescale, padded, out)):
        hu, _ = rescale.to_hu(stored)
        if not (hu.min() >= INT16.min and hu.max() <= INT16.max and np.array_equal(hu, np.rint(hu))):
            raise NotInTypeError
        out[...] = hu
    if padded is None:
        return 0
    out[padded] = PADDING_HU
    return int(np.count_nonzero(padded))


def _padded(stored: NDArray[Any], rescale: Rescale) -> NDArray[np.bool_] | None:
    if rescale.padding is None:
        return None
    low, high = rescale.padding
    padded = (stored >= low) & (stored <= high)
    return padded if padded.any() else None


def _whole(rescale: Rescale) -> bool:
    return float(rescale.slope).is_integer() and float(rescale.intercept).is_integer()


def _by_integers(
    stored: NDArray[Any], rescale: Rescale, padded: NDArray[np.bool_] | None, out: NDArray[np.int16]
) -> bool:
    """Slope * stored + intercept in integers into `out`; False where the stored type or the range is not for that.

    The sum is taken modulo 2**16, which is the true one wherever that fits int16: so much is looked at first.
    """
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2 or abs(rescale.slope) > INT16.max:
        return False
    slope, intercept = int(rescale.slope), int(rescale.intercept)
    seen = stored if padded is None else stored[~padded]
    if seen.size:
        ends = [slope * int(value) + intercept for value in (seen.min(), seen.max())]
        if min(ends) < INT16.min or max(ends) > INT16.max:
            return False
    np.copyto(out, stored, casting="unsafe")
    if slope != 1:
        out *= np.int16(slope)
    out += np.int16((intercept + (1 << 15)) % (1 << 16) - (1 << 15))
    return True
