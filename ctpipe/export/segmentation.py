"""DICOM SEG of one label volume, by highdicom: BINARY (a frame for each segment and plane) or LABELMAP.

Each frame has its own plane's position, so oblique, reversed, sheared and uneven stacks stay where they are; segments
are the classes that have voxels. Planes are held from the first labelled one to the last, which is what the format
needs. Source: PS3.3 A.51, A.51.2 (label maps), C.8.20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from ctpipe import __version__
from ctpipe.dicom.parse import quiet
from ctpipe.export.case import Case
from ctpipe.export.made import MANUFACTURER, MODEL, SERIAL, describe, uid_for
from ctpipe.export.references import References
from ctpipe.export.rle import pack
from ctpipe.export.terms import Code, Term
from ctpipe.words import LABEL_COLOURS

BINARY, LABELMAP = "BINARY", "LABELMAP"
SERIES_NUMBER = 9001  # far from those that scanners and workstations give


def segmentation(case: Case, references: References, terms: Mapping[str, Term], form: str = BINARY) -> Dataset:
    """The object, to be saved as a file. form: BINARY or LABELMAP. Raises InputError for labels without a voxel.

    Segments of BINARY are numbered from 1 in the order of the labels; those of LABELMAP have the labels as numbers.
    """
    start, stop = case.extent
    present = case.present
    numbers = {label: label if form == LABELMAP else n for n, label in enumerate(present, start=1)}
    described = [(numbers[label], name, terms[name], colour_of(label)) for label, name in present.items()]
    pixels = _gathered(case, start, stop, numbers)
    return segments(case, references, pixels, start, described, form, ("seg", form, sorted(terms.items())))


def colour_of(label: int) -> tuple[int, int, int]:
    """8-bit red, green, blue of a label: the same as in the store and in the review room."""
    return LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]


def segments(
    case: Case, references: References, pixels: NDArray, start: int,
    described: Sequence[tuple[int, str, Term, tuple[int, int, int]]], form: str, words: tuple[object, ...],
) -> Dataset:
    """A SEG of any numbered segments. pixels: uint8 or uint16 (planes, y, x) from plane `start` on.

    described: (number, name, term, colour) ascending. words: what tells this object from others of the same labels.
    """
    import highdicom as hd

    stop = start + len(pixels)
    heads = source_heads(case, references)
    others = [*heads[:start], *heads[stop:]]
    with quiet():
        seg = hd.seg.Segmentation(
            source_images=heads[start:stop],
            pixel_array=pixels,
            segmentation_type=form,
            segment_descriptions=[_description(case, references, *one) for one in described],
            series_instance_uid=uid_for(case, references, *words, "series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=uid_for(case, references, *words),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL,
            software_versions=__version__,
            device_serial_number=SERIAL,
            content_label="SEGMENTATION",
            content_description=f"labels {case.labels.name}"[:64],
            transfer_syntax_uid=ExplicitVRLittleEndian,
            further_source_images=others or None,
            omit_empty_frames=True,
            series_description=f"{case.labels.kind} {case.labels.name}"[:64],
        )
        _settle(seg, case, references, words)
        if form == LABELMAP:
            pack(seg)
    return seg


def _gathered(case: Case, start: int, stop: int, numbers: Mapping[int, int]) -> NDArray:
    """Segment numbers of planes start..stop-1; labels become numbers by a table, slab by slab."""
    table = np.zeros(max(case.labels.classes) + 1, np.uint8 if max(numbers.values()) < 256 else np.uint16)
    table[list(numbers)] = list(numbers.values())
    out = np.zeros((stop - start, case.grid.shape.y, case.grid.shape.x), table.dtype)
    for slab, labels in case.slabs():
        low, high = max(slab.start, start), min(slab.stop, stop)
        if low < high:
            out[low - start : high - start] = table[labels[low - slab.start : high - slab.start]]
    return out


def source_heads(case: Case, references: References) -> list[Dataset]:
    """What highdicom asks of source images, one a plane. Frames of a multi-frame object stand as images here."""
    return [_source_head(case, references, z) for z in range(case.grid.shape.z)]


def coded(code: Code) -> Any:
    """The code as highdicom takes it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def _source_head(case: Case, references: References, z: int) -> Dataset:
    head = Dataset()
    for element in references.head:
        head.add(element)
    head.StudyInstanceUID, head.SeriesInstanceUID = references.study, references.series
    head.FrameOfReferenceUID, head.Modality = references.frame_of_reference, "CT"
    head.SOPClassUID, head.SOPInstanceUID = CTImageStorage, references.instances[z].uid
    grid = case.grid
    head.Rows, head.Columns = grid.shape.y, grid.shape.x
    head.ImagePositionPatient = _numbers(case.positions[z])
    head.ImageOrientationPatient = _numbers((*grid.directions[:, 2], *grid.directions[:, 1]))
    head.PixelSpacing = _numbers(grid.spacing_mm[1:])
    normal = np.cross(grid.directions[:, 2], grid.directions[:, 1])
    head.SliceThickness = _numbers([abs(float(normal @ grid.affine[:3, 0]))])[0]
    if not case.uneven:
        head.SpacingBetweenSlices = head.SliceThickness
    return head


def _numbers(values: Any) -> list[str]:
    return [format_number_as_ds(round(float(value), 9) + 0.0) for value in values]


def _description(
    case: Case, references: References, number: int, name: str, term: Term, colour: tuple[int, int, int]
) -> Any:
    import highdicom as hd

    algorithm = None
    if case.algorithm_type != "MANUAL":
        algorithm = hd.AlgorithmIdentificationSequence(
            name=f"ctpipe {case.labels.name}"[:64], family=coded(Code("123110", "DCM", "Artificial Intelligence")),
            version=__version__,
        )  # fmt: skip
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=coded(term.category),
        segmented_property_type=coded(term.kind),
        algorithm_type=case.algorithm_type,
        algorithm_identification=algorithm,
        tracking_uid=uid_for(case, references, "tracking", name),
        tracking_id=name[:64],
        anatomic_regions=[coded(term.region)] if term.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*colour),
    )


def _settle(seg: Dataset, case: Case, references: References, words: tuple[object, ...]) -> None:
    """What highdicom cannot be told: times of the labels, multi-frame sources, resampled planes, one more fixed UID."""
    describe(seg, case, references, SERIES_NUMBER)
    organisation = uid_for(case, references, *words, "dimensions")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    by_uid = {instance.uid: instance for instance in references.instances}
    for source in (*seg.get("SourceImageSequence", ()), *_referenced(seg)):
        source.ReferencedSOPClassUID = by_uid[source.ReferencedSOPInstanceUID].sop_class
    frames_at = {tuple(head): n for n, head in enumerate(map(tuple, np.round(case.positions, 6).tolist()))}
    for group in seg.PerFrameFunctionalGroupsSequence:
        position = tuple(round(float(v), 6) for v in group.PlanePositionSequence[0].ImagePositionPatient)
        instance = references.instances[frames_at[position]]
        for derivation in group.DerivationImageSequence:
            for source in derivation.SourceImageSequence:
                source.ReferencedSOPClassUID = instance.sop_class
                if instance.frame is not None:
                    source.ReferencedFrameNumber = instance.frame
                if case.resampled:
                    source.SpatialLocationsPreserved = "NO"
    _once_each(seg)


def _referenced(seg: Dataset) -> list[Dataset]:
    return [item for series in seg.get("ReferencedSeriesSequence", ()) for item in series.ReferencedInstanceSequence]


def _once_each(seg: Dataset) -> None:
    """A multi-frame source is one instance, however many planes it gave."""
    holders = [(seg, "SourceImageSequence")]
    holders += [(series, "ReferencedInstanceSequence") for series in seg.get("ReferencedSeriesSequence", ())]
    for holder, keyword in holders:
        items = {item.ReferencedSOPInstanceUID: item for item in holder.get(keyword, ())}
        if items and len(items) < len(holder[keyword].value):
            setattr(holder, keyword, list(items.values()))
