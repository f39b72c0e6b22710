"""The rules of the corpus' policy, each broken on purpose: what is changed in the code, and the entries that must fail.

An edit changes a few words of one function and puts the changed code in its place, wherever that function was imported;
the file on disk stays as it is. Where the words are no longer in the function the edit says so: it never passes unseen.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Edit:
    """where: 'module:function' or 'module:Class.method' below ctpipe.dicom. old stands exactly once in its source."""

    where: str
    old: str
    new: str

    def function(self) -> FunctionType:
        module, _, path = self.where.partition(":")
        found: Any = importlib.import_module(f"ctpipe.dicom.{module}")
        for name in path.split("."):
            found = inspect.getattr_static(found, name)
        found = getattr(found, "fget", found)  # of a property
        return inspect.unwrap(found)


def _code(function: FunctionType, edits: Sequence[Edit]) -> CodeType:
    """The function's code with each `new` in place of its `old`."""
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise LookupError(f"{edit.where} holds {edit.old!r} {source.count(edit.old)} times: mend this edit")
        source = source.replace(edit.old, edit.new)
    changed = compile("from __future__ import annotations\n" + source, edits[0].where, "exec")
    return next(part for part in changed.co_consts if isinstance(part, CodeType) and part.co_name == function.__name__)


@dataclass(frozen=True)
class Mutation:
    """rule: of the policy, or the promise (X4, P1). broken: how, in a few words. entries: each of them must fail."""

    rule: str
    broken: str
    edits: tuple[Edit, ...]
    entries: tuple[str, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the code is as the edits have it."""
        functions = {edit.where: edit.function() for edit in self.edits}
        kept = {where: function.__code__ for where, function in functions.items()}
        codes = {where: _code(functions[where], [e for e in self.edits if e.where == where]) for where in functions}
        try:
            for where, function in functions.items():
                function.__code__ = codes[where]
            yield
        finally:
            for where, function in functions.items():
                function.__code__ = kept[where]


def _one(rule: str, broken: str, where: str, old: str, new: str, *entries: str) -> Mutation:
    return Mutation(rule, broken, (Edit(where, old, new),), entries)


def _more(rule: str, broken: str, *edits_and_entries: Edit | str) -> Mutation:
    edits = tuple(given for given in edits_and_entries if isinstance(given, Edit))
    return Mutation(rule, broken, edits, tuple(given for given in edits_and_entries if isinstance(given, str)))


_ORDER_AND_VALUES = [
    _one("1", "planes stay in the order of the walk", "split:sorted_planes",
         "planes[int(index)] for index in stack.order()", "planes[index] for index in range(len(planes))",
         "reversed_instance_order", "axial_plain"),
    _one("1", "planes descend along the normal", "geometry:Stack.order",
         "np.argsort(self.heights", "np.argsort(-self.heights", "axial_plain", "feet_first_supine"),
    _one("1", "the normal is column x row", "geometry:Stack.normal",
         "self.orientation[:3], self.orientation[3:]", "self.orientation[3:], self.orientation[:3]", "coronal"),
    _one("1", "PatientPosition turns the stack over", "headers:_position", "return elements.decimals(",
         "return Decimals((0.0, 0.0, -1.0), 0.0) if elements.text(ds, 'PatientPosition') == 'FFP' else elements.decimals(",
         "patient_position_lies"),
    _one("2", "always float32", "judging:_dtype", '"int16" if all(', '"float32" if all(', "axial_plain"),
    _one("2", "int16 wherever all is whole, past its range too", "pixels:PlaneFacts.fits_int16",
         "return self.whole and self.lowest >= INT16.min and self.highest <= INT16.max", "return self.whole",
         "one_voxel_past_int16", "unsigned16_full_range"),
    _more("2", "values are clipped to int16",
          Edit("pixels:PlaneFacts.fits_int16", "self.whole and self.lowest >= INT16.min and self.highest <= INT16.max",
               "self.whole"),
          Edit("hounsfield:into_hu", "raise NotInTypeError", "hu = np.clip(hu, INT16.min, INT16.max)"),
          "one_voxel_past_int16", "slope_large_overflow"),
    _more("2", "values are wrapped to int16",
          Edit("pixels:PlaneFacts.fits_int16", "self.whole and self.lowest >= INT16.min and self.highest <= INT16.max",
               "self.whole"),
          Edit("hounsfield:into_hu", "raise NotInTypeError", "hu = hu.astype(np.int64).astype(np.int16)"),
          "one_voxel_past_int16", "unsigned16_full_range"),
    _more("2", "values are rounded to int16",
          Edit("pixels:PlaneFacts.fits_int16", "self.whole and self", "self"),
          Edit("hounsfield:into_hu", "raise NotInTypeError", "hu = np.rint(hu)"), "slope_half", "intercept_fraction"),
    _one("2", "the first plane's slope and intercept for all", "volumes:_read_plane",
         "into_hu(stored, plane.rescale", "into_hu(stored, source.planes[0].rescale",
         "rescale_varies", "rescale_varies_integer"),
    _one("2", "HU in float32 arithmetic", "pixels:Rescale.to_hu", "astype(np.float64)", "astype(np.float32)",
         "jpeg_lossless_16"),
    _one("2", "MONOCHROME1 turns HU over", "headers:_rescale", "return Rescale(slope, intercept, padding)",
         "return Rescale(-slope if elements.text(ds, 'PhotometricInterpretation') == 'MONOCHROME1' else slope, "
         "intercept, padding)", "monochrome1"),
    _one("2", "a real-world value mapping touches HU", "headers:_rescale", "return Rescale(slope, intercept, padding)",
         "return Rescale(2 * slope if 'RealWorldValueMappingSequence' in ds else slope, intercept, padding)",
         "display_tags_ignored"),
    _one("3", "high bits are not masked", "pixels:stored_values", " & ((1 << form.bits_stored) - 1)", "",
         "dirty_high_bits", "overlay_in_high_bits"),
    _one("3", "values are taken from the low bits, whatever HighBit says", "pixels:stored_values",
         "form.high_bit + 1 - form.bits_stored", "0", "left_justified_12"),
    _one("3", "no sign extension below whole words", "pixels:stored_values", "if form.signed:", "if False:",
         "signed12_clean", "jpegls_signed12"),
    _one("3", "whole words are always unsigned", "pixels:stored_values", "if form.signed else words",
         "if False else words", "signed16"),
    _one("3", "the sign bit by another plane's PixelRepresentation", "volumes:_read_plane",
         "plane.form.decode", "source.planes[-1].form.decode", "mixed_sign"),
    _one("3", "big endian words read as little endian", "pixels:_native_words", '">" if', '"<" if', "big_endian"),
    _one("3", "the codestream's sign overrules the header's", "pixels:_reconcile",
         "return stored_values(pixels.astype(f\"u{form.bits_allocated // 8}\", copy=False), form)", "return pixels",
         "j2k_sign_mismatch", "jpegls_signed12"),
    _one("3", "a codestream of fewer bits is shifted up to BitsStored", "pixels:_reconcile",
         "        return pixels\n    raise", "        return pixels << (form.bits_stored - precision)\n    raise",
         "codestream_bit_depth_lies"),
    _more("3", "a plane of another size is filled up",
          Edit("pixels:_from_codestream", "if (code.rows, code.columns) != (form.rows, form.columns):", "if False:"),
          Edit("pixels:_from_codestream", "precision, form.rows, form.columns", "precision, code.rows, code.columns"),
          Edit("pixels:_from_codestream", "decode_apart(data, job),",
               "np.resize(decode_apart(data, job), (form.rows, form.columns)),"), "codestream_other_size"),
    _one("3", "a codestream's kind is not looked at", "codestreams:inspect", "if syntax in JPEG_2000:",
         "if data[:2] == b'\\xff\\x4f':", "syntax_lies_codec"),
    _one("3", "an unknown transfer syntax is read as raw", "pixels:PixelFormat.fault",
         "if self.syntax not in COMPRESSED | NATIVE:", "if False:", "syntax_unknown"),
    _one("3", "only the first fragment of a frame is read", "codestreams:frame_spans",
         "return [tuple(parts)]", "return [(parts[0],)]", "fragments_no_offset_table"),
    _one("3", "BitsStored may be more than BitsAllocated", "pixels:PixelFormat.fault",
         "if not 1 <= self", "if self.bits_stored > self.bits_allocated:\n        return None\n    if not 1 <= self",
         "bits_stored_over_allocated"),
    _one("3", "any BitsAllocated is read", "pixels:PixelFormat.fault", "not in (8, 16, 32)", "not in (8, 12, 16, 32)",
         "packed12"),
    _one("4", "padding is ignored", "headers:_padding", "return min(found), max(found)", "return None",
         "padding_value", "padding_unsigned"),
    _one("4", "PixelPaddingRangeLimit is ignored", "headers:_padding", '("PixelPaddingValue", "PixelPaddingRangeLimit")',
         '("PixelPaddingValue",)', "padding_range"),
    _one("4", "the padding value is always unsigned", "headers:_padding", "signed=form.signed", "signed=False",
         "padding_value"),
    _one("4", "padded voxels are not counted", "pixels:Rescale.to_hu", "int(np.count_nonzero(padded))", "0",
         "padding_value"),
    _one("4", "values below -1024 are taken for padding without the tag", "hounsfield:into_hu", "    return 0",
         "    np.maximum(out, -1024, out=out); return 0", "below_minus_1024_untagged"),
]  # fmt: skip

_RESCALE = [
    _one("5", "a missing slope and intercept are 1 and 0", "headers:_rescale", "return None",
         "faults.pop(); return Rescale(1.0, 0.0, padding)", "rescale_missing", "rescale_missing_one"),
    _one("5", "slope 0 passes", "headers:_rescale", "if slope == 0:", "if False:", "rescale_slope_zero"),
    _one("5", "what Python reads as a number is one", "elements:decimals",
         "if not all(_DECIMAL.fullmatch(part) for part in parts):",
         "if 'nan' in parts:\n        return Decimals(tuple(map(float, parts)), 0.0)\n    if False:",
         "rescale_nan"),
    _one("5", "any RescaleType is HU", "headers:_rescale", 'if kind and kind != ("HU",):', "if False:",
         "rescale_type_us", "rescale_type_density"),
    _one("5", "an absent RescaleType is refused", "headers:_rescale", 'if kind and kind != ("HU",):',
         'if kind != ("HU",):', "rescale_type_absent"),
    _more("5", "a modality LUT is overlooked",
          Edit("headers:_object_faults", '"ModalityLUTSequence" in ds', "False"),
          Edit("headers:_rescale", "return None", "faults.pop(); return Rescale(1.0, 0.0, padding)"), "modality_lut"),
]  # fmt: skip

_GROUPS = [
    _one("6", "frames of reference are mixed", "split:groups_of", "(plane.frame_of_reference, orientation",
         "('', orientation", "frame_of_reference_changes"),
    _one("6", "orientations are mixed", "split:groups_of", "plane.frame_of_reference, orientation,",
         "plane.frame_of_reference, 0,", "reformats_in_one_series", "radial_planes"),
    _one("6", "cosines that differ in the sixth digit part a series", "split:groups_of", "ORIENTATION_TOLERANCE", "0.0",
         "cosine_noise_tiny"),
    _one("6", "planes of two sizes are mixed", "split:groups_of", "plane.rows, plane.columns,", "0, 0,",
         "rows_change", "one_slice_other_size"),
    _one("6", "pixel spacings are mixed", "split:groups_of", "plane.columns, spacing)", "plane.columns, 0)",
         "pixel_spacing_changes"),
    _one("6", "series of one study are mixed", "headers:_common", 'uid("SeriesInstanceUID")', 'uid("StudyInstanceUID")',
         "two_series_one_folder"),
    _one("6", "the first of planes at one position is kept", "split:phases_of", "    return None",
         "    return [list({plane.position.values: plane for plane in planes}.values())]",
         "repeats_without_discriminator", "same_position_other_pixels"),
    _one("6", "a key that varies without repeats splits", "split:phases_of",
         "if not _repeats(planes):", "if len({str(plane.keys) for plane in planes}) == 1:",
         "acquisition_per_slice", "kvp_varies_no_repeat"),
    *(_one("6", f"{name} does not tell phases apart", "split:phases_of", "for key in PHASE_KEYS if",
           f"for key in PHASE_KEYS if not key.startswith({name!r}) and", entry)
      for name, entry in (("AcquisitionNumber", "two_acquisitions_interleaved"), ("Temporal", "perfusion_temporal"),
                          ("NominalPercentageOfCardiac", "gated_cardiac_phase"),
                          ("TriggerTime", "gated_trigger_time"), ("KVP", "dual_energy_kvp"))),
    _one("6", "one faulty phase refuses the other", "judging:Judge._group",
         "return [verdict for part in parts for verdict in self._stack(part, single, series)]",
         "found = [verdict for part in parts for verdict in self._stack(part, single, series)]; "
         "return found if all(v.source for v in found) else [v for v in found if not v.source]", "phase_incomplete"),
]  # fmt: skip

_SPACING = [
    _one("7", "no gap is seen", "geometry:_uneven", "if worst <= tolerance:", "if True:",
         "missing_slice_middle", "uneven_two_steps", "enhanced_gap"),
    _one("7", "a step is held against the one before only", "geometry:_uneven",
         "float(np.abs(steps - spacing).max()), float(np.abs(places).max())", "0.0, float(np.abs(np.diff(steps)).max())",
         "spacing_drift"),
    _one("7", "the spacing tolerance is 30 %", "geometry:stack_faults", "RELATIVE_TOLERANCE * spacing", "0.3 * spacing",
         "jitter_large"),
    _one("7", "no tolerance for the digits written", "geometry:position_tolerance", "min(stack.unit, ", "min(0.0, ",
         "positions_tenths"),
    _one("7", "unwritten digits excuse anything", "geometry:position_tolerance",
         "min(stack.unit, DIGIT_TOLERANCE * spacing)", "5 * stack.unit", "positions_tenths_jitter"),
    _one("7", "shear and shift are not looked for", "geometry:_shifted", "if worst <= tolerance:", "if True:",
         "gantry_tilt_untagged", "gantry_tilt_angled_planes", "one_plane_shifted"),
    _one("7", "half a millimetre of shear passes", "geometry:_shifted", "if worst <= tolerance:", "if worst <= 0.5:",
         "gantry_tilt_small"),
    _one("7", "no shear is called a tilt", "geometry:_shifted", "if rest <= tolerance:", "if False:",
         "gantry_tilt_untagged"),
    _one("7", "GantryDetectorTilt alone refuses", "headers:_object_faults", 'if parsed.truncated:',
         "if elements.scalar(ds, 'GantryDetectorTilt'):\n        yield 'gantry-tilt', 'gantry tilt by its tag'\n"
         "    if parsed.truncated:", "tilt_tag_only"),
    _one("7", "the affine has the first step, not first to last", "geometry:grid_of",
         "(last - first) / (len(order) - 1)", "stack.positions[order[1]] - first", "positions_rounded"),
    _one("7", "the affine has SliceThickness", "judging:_volume", "grid=arrangement.grid,",
         "grid=type(arrangement.grid).from_affine(arrangement.grid.shape, arrangement.grid.affine @ np.diag("
         "[float(first.attributes.get('slice_thickness_mm', 1)) / arrangement.grid.spacing_mm[0], 1, 1, 1]), None),",
         "thin_overlapping", "slice_thickness_varies"),
    _one("7", "row and column spacing are swapped", "headers:_pixel_spacing", "return values[0], values[1]",
         "return values[1], values[0]", "nonsquare_pixels"),
    _one("7", "row and column cosines are swapped", "headers:_orientation", "return values", "return column + row",
         "oblique_three_axes"),
    _one("8", "two planes are enough", "geometry:stack_faults", "if n < MIN_PLANES:", "if n < 2:", "two_slices"),
    _one("8", "one plane has the spacing of its thickness", "geometry:stack_faults", "if n < MIN_PLANES:",
         "if n == 1:\n        return []\n    if n < MIN_PLANES:", "single_slice"),
    _one("8", "three planes are too few", "geometry:stack_faults", "if n < MIN_PLANES:", "if n < 4:", "three_slices"),
]  # fmt: skip

_HEADERS = [
    _one("9", "SliceLocation stands in for a missing position", "headers:_position",
         'return elements.decimals(ds, "ImagePositionPatient", 3, "missing-position")',
         "where = elements.decimals(ds, 'SliceLocation', 1, 'missing-position') "
         "if 'ImagePositionPatient' not in ds else None\n"
         "    return Decimals((0.0, 0.0, where.values[0]), where.unit) if where else "
         "elements.decimals(ds, 'ImagePositionPatient', 3, 'missing-position')", "missing_position_all"),
    _one("9", "a plane without a place is left out", "judging:Judge._verdicts", "homeless = [plane for",
         "single = replace(single, planes=[p for p in single.planes if _has_a_place(p)])\n"
         "    planes = [p for p in planes if _has_a_place(p)]\n    homeless = [plane for", "missing_position_one", "enhanced_position_absent"),
    _one("9", "a missing orientation is axial", "headers:_orientation", "values = elements",
         "if 'ImageOrientationPatient' not in ds:\n        return (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)\n    values = elements",
         "missing_orientation_all"),
    _one("9", "decimal commas are read", "elements:decimals", 'raw.value.decode("latin-1").split',
         'raw.value.decode("latin-1").replace(",", ".").split', "comma_decimals"),
    _one("9", "cosines of any length pass", "headers:_orientation", "abs(dot**0.5 - 1) > UNIT_TOLERANCE", "False",
         "nonunit_cosines", "zero_cosines"),
    _one("9", "cosines at any angle pass", "headers:_orientation", "abs(dots[2]) > UNIT_TOLERANCE", "False",
         "nonorthogonal_cosines"),
    _one("9", "PixelSpacing 0 or less passes", "headers:_pixel_spacing", "if min(values) <= 0:", "if False:",
         "pixel_spacing_zero", "pixel_spacing_negative"),
    _one("9", "ImagerPixelSpacing stands in for PixelSpacing", "headers:_pixel_spacing", '(ds, "PixelSpacing"',
         '(ds, "PixelSpacing" if "PixelSpacing" in ds else "ImagerPixelSpacing"', "pixel_spacing_missing"),
]  # fmt: skip

_SAME_TWICE = [
    _one("10", "copies are not told", "judging:_taken", "if n_copies:", "if False:", "duplicate_file", "duplicate_series"),
    _one("10", "copies stay in the series", "split:drop_copies", "plane.instance or plane.entry", "plane.entry",
         "duplicate_file"),
    _one("10", "the first of a UID wins, whatever its pixels", "split:_same_content", "return bool(a.facts",
         "return True or bool(a.facts", "same_uid_other_pixels"),
    _one("10", "the first of a UID wins, wherever it lies", "split:_same_content", "if _meaning(a) != _meaning(b):",
         "if _meaning(a) != _meaning(b):\n        return True\n    if False:", "same_uid_other_position"),
    _one("10", "patients are not compared", "judging:Judge._verdicts", "len({plane.patient for plane in planes}) > 1",
         "False", "series_under_two_patients"),
    _one("10", "studies are not compared", "judging:Judge._verdicts", "len({plane.study for plane in planes}) > 1",
         "False", "series_under_two_studies"),
]  # fmt: skip

_ASIDE = [
    _one("11", "localizers are planes", "classify:_not_plain_ct", 'if "LOCALIZER" in', 'if "NONE" in',
         "localizer_in_series", "localizer_own_series"),
    _one("11", "other modalities are CT", "classify:not_a_ct_image", "if kind == CT or kind in ENHANCED:",
         "if kind == CT or kind in ENHANCED or modality in ('MR', 'PT'):\n        return None\n    if False:",
         "mr_and_pet_beside"),
    _one("11", "secondary captures refuse", "classify:not_a_ct_image", 'return _aside("secondary-capture"',
         'return Fault(VerdictKind.REJECT, "not-ct"', "secondary_capture_rgb"),
    _one("11", "colour pictures are planes", "classify:_not_plain_ct", "if (samples or 1) != 1 or (photometric and not photometric[0].startswith(\"MONOCHROME\")):", "if False:",
         "rgb_ct"),
    _one("11", "a DICOMDIR is refused", "classify:not_a_ct_image", 'return _aside("not-image", "a DICOMDIR',
         'return Fault(VerdictKind.REJECT, "unreadable", "a DICOMDIR', "dicomdir_beside"),
    _one("11", "reports and plans are refused", "classify:not_a_ct_image",
         'return _aside("not-image", "not an image', 'return Fault(VerdictKind.REJECT, "unreadable", "not an image',
         "non_image_objects"),
    _more("11", "links are followed",
          Edit("sources:_walk", "os.lstat(path)", "os.stat(path)"),
          Edit("sources:_open_source", "os.O_NOFOLLOW | ", ""), "symlink_out_of_tree"),
    _one("11", "special files are opened", "sources:_walk", "elif not stat.S_ISREG(status.st_mode):", "elif False:",
         "fifo_in_folder"),
    _one("11", "files that are no DICOM refuse", "looking:_no_dicom", 'VerdictKind.SET_ASIDE, "not', 'VerdictKind.REJECT, "not',
         "foreign_files"),
]  # fmt: skip

_BROKEN_FILES = [
    _one("12", "a broken file is left out of its series", "index:Index.broken", "return [(entry", "return [] and [(entry",
         "truncated_header_last"),
    _one("12", "planes that are broken are left out", "judging:Judge._verdicts", "broken = self.index",
         "planes = [p for p in planes if not p.faults]\n    broken = self.index",
         "truncated_pixels_last", "pixels_absent", "truncated_codestream"),
    _more("12", "short pixel data is filled up",
          Edit("headers:_object_faults", "if parsed.truncated:", "if False:"),
          Edit("headers:_spans", "if length < size * frames:", "if False:"),
          Edit("pixels:_native_words", "if len(data) < form.frame_bytes:",
               "data = data.ljust(form.frame_bytes, bytes(1))\n    if False:"),
          "truncated_pixels_middle", "truncated_by_one_byte", "enhanced_frames_short"),
    _one("12", "a broken file of no series refuses all", "judging:Judge._verdicts", "broken = self.index.broken(uid)",
         "broken = self.index.broken(uid) + [(0, _) for _ in ()] + "
         "[(0, lot.fault) for lot in self.index.lots() if lot.fault.kind is VerdictKind.REJECT]",
         "magic_then_rubbish"),
    _one("13", "archives are not opened", "archives:archive_kind", 'return "zip"', "return None", "zip_archive"),
    _one("13", "archives are read to any depth", "sources:expand", ">= MAX_ARCHIVE_DEPTH", ">= 99", "zip_nested_deep"),
    _one("13", "no limit on the ratio of a member", "archives:_refuse_if_unsafe",
         "member.size > RATIO_COUNTS_ABOVE and", "False and", "zip_bomb"),
    _more("13", "no limit on the ratio of a compressed tar",
          Edit("archives:_unpacked", "size > RATIO_COUNTS_ABOVE and", "False and"),
          Edit("archives:_refuse_if_unsafe", "member.size > RATIO_COUNTS_ABOVE and", "False and"), "gzip_bomb"),
    _one("13", "a member's checksum is not looked at", "archives:ZipArchive.read",
         "with self._zip.open(info) as member:",
         "with self._zip.open(info) as member:\n                member._expected_crc = None", "zip_crc_wrong"),
    _one("14", "any text is a UID", "elements:is_uid", "return value is not None and", "return True or",
         "uid_traversal", "uid_empty"),
    _one("14", "sloppy UIDs are refused", "elements:is_uid", "return value is not None and",
         "return value is not None and '.0' not in value and", "uid_sloppy"),
    _one("15", "burned-in text passes", "headers:_object_faults", '"YES" in', '"NONE" in', "burned_in_flag"),
    _one("15", "loss is not recorded", "headers:_common", "if parsed.syntax in LOSSY or", "if False and",
         "j2k_lossy", "jpegls_near_lossless"),
    _one("16", "the first frame's groups for all", "headers:planes_of", "groups[frame], shared", "groups[0], shared",
         "enhanced_plain", "enhanced_rescale_per_frame"),
    _one("16", "shared groups are not read", "headers:planes_of", "groups[frame], shared", "groups[frame], None",
         "enhanced_shared_rescale"),
    _one("16", "the first frame's pixels for all", "headers:planes_of", "spans[frame] if spans", "spans[0] if spans",
         "enhanced_plain"),
    _more("16", "frames without groups are left out",
          Edit("headers:_frames", " or count != len(groups)", ""),
          Edit("headers:_frames", "return count, groups", "return len(groups), groups"),
          Edit("headers:_spans", "if length > size * frames + (size * frames) % 2:", "if False:"),
          "enhanced_groups_short"),
    _more("16", "frames of a multi-frame object without positions are stacked by its spacing",
          Edit("headers:_frames", "        return 1, None",
               "        return count or 1, [ds] * count if (count or 1) > 1 and faults.clear() is None else None"),
          Edit("headers:planes_of", "**geometry,", "**{**geometry, 'position': Decimals((0.0, 0.0, 2.0 * frame), 0.0)} "
               "if frames > 1 else {**geometry},"),
          Edit("headers:_macro", "    if groups is None:", "    if groups is None or 'Rows' in groups[0]:"),
          "classic_multiframe"),
    _one("16", "frames of two times are mixed", "headers:_phase_keys",
         "out[key] = names.text(value) if isinstance(value, str) else value", "out[key] = None", "enhanced_two_times"),
]  # fmt: skip

_PROMISES = [
    _one("P1", "a description is kept", "headers:_attributes", "return out",
         "return {**out, 'description': elements.text(ds, 'StudyDescription') or '', "
         "'name': elements.text(ds, 'PatientName') or ''}", "phi_everywhere"),
    _one("P2", "UIDs pass", "identity:Pseudonyms.uid", "if self.keep_uids", "if True", "phi_everywhere"),
    _one("P4", "an error quotes what it found", "elements:decimals", 'f"{keyword} holds a value that is not a number"',
         "str(parts)", "phi_in_error_path"),
    _one("X5", "a deflated data set may grow without end", "parse:_inflate",
         "stream.decompress(packed, limit)", "stream.decompress(packed)", "bomb_deflated"),
    _one("X7", "what a parser raises is not foreseen", "parse:parse", "except Exception as error:",
         "except ZeroDivisionError as error:", "syntax_lies_vr"),
]  # fmt: skip

MUTATIONS = [*_ORDER_AND_VALUES, *_RESCALE, *_GROUPS, *_SPACING, *_HEADERS, *_SAME_TWICE, *_ASIDE, *_BROKEN_FILES,
             *_PROMISES]  # fmt: skip
