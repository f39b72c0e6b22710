"""DICOM SR TID 1500 of every component, and the SEG whose segments it measures.

Each component is a segment of its own in a SEG beside the report, so that a reader shows what a row of the table is;
the report refers to it and to the CT series. Values: volume, long and short axis within one plane, mean and standard
deviation of the attenuation. Source: PS3.16 TID 1500, 1411, 1419, 300; CID 7469, 7470; PS3.3 A.35.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctpipe import __version__
from ctpipe.dicom.parse import quiet
from ctpipe.errors import InputError
from ctpipe.export.case import Case
from ctpipe.export.made import MANUFACTURER, MODEL, describe, uid_for
from ctpipe.export.references import References
from ctpipe.export.segmentation import BINARY, coded, colour_of, segments, source_heads
from ctpipe.export.terms import Code, Term
from ctpipe.scoring import Measured
from ctpipe.volume import slabs_of

SERIES_NUMBER = 9003
MAX_COMPONENTS = 500  # a report of more is read by nobody, and a SEG of more segments opens nowhere

_VOLUME = Code("118565006", "SCT", "Volume")
_LONG_AXIS = Code("103339001", "SCT", "Long Axis")
_SHORT_AXIS = Code("103340004", "SCT", "Short Axis")
_ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
_MEAN = Code("373098007", "SCT", "Mean")
_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
_ML, _MM, _HU = Code("ml", "UCUM", "ml"), Code("mm", "UCUM", "mm"), Code("[hnsf'U]", "UCUM", "Hounsfield unit")
_CT = Code("25045-6", "LN", "CT unspecified body region")


def measurement_report(
    case: Case, references: References, terms: Mapping[str, Term],
    measured: list[tuple[Measured, int]], numbered: Callable[[int, int], NDArray],
) -> tuple[Dataset, Dataset]:
    """(report, SEG of the components), to be saved as files.

    measured, numbered: what `scoring.measured_with_planes` gives. Raises InputError for no component, or too many.
    """
    import highdicom as hd

    if not measured:
        case.extent  # noqa: B018  # raises: there is no voxel
    if len(measured) > MAX_COMPONENTS:
        raise InputError(f"labels {case.labels.name} have {len(measured)} components, a report holds {MAX_COMPONENTS}",
                         "drop the specks first: ctpipe post --steps min-mm3=…")  # fmt: skip
    words = ("sr", sorted(terms.items()))
    seg = _components(case, references, terms, measured, numbered, words)
    with quiet():
        report = hd.sr.ComprehensiveSR(
            evidence=[seg, *source_heads(case, references)],
            content=_content(case, references, terms, measured, seg)[0],
            series_instance_uid=uid_for(case, references, *words, "series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=uid_for(case, references, *words),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
            series_description=f"measurements of {case.labels.name}"[:64],
        )
        describe(report, case, references, SERIES_NUMBER)
        del report.FrameOfReferenceUID, report.PositionReferenceIndicator  # an image's, not a document's
        _true_classes(report, references)
    return report, seg


def _components(
    case: Case, references: References, terms: Mapping[str, Term], measured: list[tuple[Measured, int]],
    numbered: Callable[[int, int], NDArray], words: tuple[object, ...],
) -> Dataset:
    start, stop = case.extent
    pixels = np.zeros((stop - start, case.grid.shape.y, case.grid.shape.x), np.uint16)
    for slab in slabs_of(case.grid.shape.z):
        low, high = max(slab.start, start), min(slab.stop, stop)
        if low < high:
            pixels[low - start : high - start] = numbered(low, high)
    described = [(number, _name(one), terms[one.name], colour_of(one.label)) for one, number in measured]
    if len(measured) < 256:
        pixels = pixels.astype(np.uint8)
    return segments(case, references, pixels, start, described, BINARY, (*words, "seg"))


def _name(one: Measured) -> str:
    return f"{one.name[:56]} {one.number}"


def _content(
    case: Case, references: References, terms: Mapping[str, Term], measured: list[tuple[Measured, int]], seg: Dataset
) -> Any:
    from highdicom import sr

    device = sr.ObserverContext(
        observer_type=coded(Code("121007", "DCM", "Device")),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid_for(case, references, "device"), name=MANUFACTURER, manufacturer_name=MANUFACTURER,
            model_name=f"{MODEL} {__version__}",
        ),
    )  # fmt: skip
    groups = [
        sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=uid_for(case, references, "tracking", _name(one)), identifier=_name(one)
            ),
            referenced_segment=sr.ReferencedSegment(
                seg.SOPClassUID, seg.SOPInstanceUID, number,
                source_series=sr.SourceSeriesForSegmentation(references.series),
            ),
            finding_category=coded(terms[one.name].category),
            finding_type=coded(terms[one.name].kind),
            finding_sites=_sites(terms[one.name]),
            measurements=_measurements(one),
        )
        for one, number in measured
    ]  # fmt: skip
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=coded(_CT),
        imaging_measurements=groups,
    )


def _sites(term: Term) -> list[Any] | None:
    from highdicom.sr import FindingSite

    return [FindingSite(anatomic_location=coded(term.region))] if term.region else None


def _measurements(one: Measured) -> list[Any]:
    values: list[tuple[Code, float, Code, Code | None]] = [
        (_VOLUME, one.volume_ml, _ML, None),
        (_LONG_AXIS, one.axes.long_mm, _MM, None),
        (_SHORT_AXIS, one.axes.short_mm, _MM, None),
    ]
    if one.hu:
        values += [(_ATTENUATION, one.hu[0], _HU, _MEAN), (_ATTENUATION, one.hu[1], _HU, _DEVIATION)]
    return [_measurement(*value) for value in values]


def _measurement(name: Code, value: float, unit: Code, derivation: Code | None) -> Any:
    from highdicom.sr import Measurement

    return Measurement(name=coded(name), value=round(value, 6), unit=coded(unit),
                       derivation=coded(derivation) if derivation else None)  # fmt: skip


def _true_classes(report: Dataset, references: References) -> None:
    """The classes and frames that highdicom was not told of: the source stood as single images for it."""
    by_uid = {instance.uid: instance for instance in references.instances}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword, ()):
            for series in study.ReferencedSeriesSequence:
                items = {item.ReferencedSOPInstanceUID: item for item in series.ReferencedSOPSequence}
                for uid, item in items.items():
                    if uid in by_uid:
                        item.ReferencedSOPClassUID = by_uid[uid].sop_class
                series.ReferencedSOPSequence = list(items.values())
