"""A plane's header as one line of JSON and back: how the index keeps it and workers hand it over; never pickled."""

from __future__ import annotations

import json
from typing import Any

from ctpipe.dicom.elements import Decimals
from ctpipe.dicom.headers import PlaneHeader
from ctpipe.dicom.pixels import PixelFormat, Rescale
from ctpipe.dicom.sources import Locator

# Raised with every change of what is written or of how a header is read: older lines are then read from the files anew.
TEXT_VERSION = 1


def to_text(plane: PlaneHeader) -> str:
    """All of a header but what its file's place in the index says (locator, entry)."""
    form, rescale, position = plane.form, plane.rescale, plane.position
    return json.dumps([
        plane.frame, plane.in_place, plane.series, plane.study, plane.instance, plane.patient,
        plane.frame_of_reference, plane.rows, plane.columns,
        position and [position.values, position.unit], plane.orientation, plane.pixel_spacing,
        form and [form.rows, form.columns, form.bits_allocated, form.bits_stored, form.high_bit, form.signed,
                  form.syntax],
        rescale and [rescale.slope, rescale.intercept, rescale.padding],
        plane.spans, plane.digest, plane.keys, plane.voi, plane.exposure, plane.attributes, plane.notes, plane.faults,
    ], separators=(",", ":"))  # fmt: skip


def from_text(text: str, locator: Locator, entry: int, signature: str, known_digest: str | None) -> PlaneHeader:
    """The header that `to_text` wrote, of the file at `locator`, with the digest that an earlier call worked out."""
    (frame, in_place, series, study, instance, patient, frame_of_reference, rows, columns, position, orientation,
     pixel_spacing, form, rescale, spans, digest, keys, voi, exposure, attributes, notes,
     faults) = json.loads(text)  # fmt: skip
    return PlaneHeader(
        locator=locator, entry=entry, signature=signature, frame=frame, in_place=in_place, series=series, study=study,
        instance=instance,
        patient=patient, frame_of_reference=frame_of_reference, rows=rows, columns=columns,
        position=position and Decimals(tuple(position[0]), position[1]),
        orientation=_tuple(orientation), pixel_spacing=_tuple(pixel_spacing),
        form=form and PixelFormat(*form),
        rescale=rescale and Rescale(rescale[0], rescale[1], _tuple(rescale[2])),
        spans=tuple((at, length) for at, length in spans), digest=digest or known_digest or "",
        keys=keys, voi=_tuple(voi),
        exposure=exposure, attributes=attributes, notes=tuple(notes),
        faults=tuple((reason, detail) for reason, detail in faults),
    )  # fmt: skip


def _tuple(values: list[Any] | None) -> Any:
    return None if values is None else tuple(values)
