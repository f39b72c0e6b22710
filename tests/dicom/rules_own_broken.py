"""What no entry of the corpus would see go: mutations whose `entries` are cases of test_rules_own.py."""

from __future__ import annotations

from code_broken import Edit, more, one

_MEMBERS = "if any(member.trouble == trouble for member in members):"

OWN = [
    one("2", "a plane past int16 is wrapped when it is read", "hounsfield:into_hu", "raise NotInTypeError",
        "hu = hu.astype(np.int64).astype(np.int16)", "past int16, judged by its headers"),
    one("2", "integers past int16 are wrapped when they are read", "hounsfield:_by_integers",
        "if min(ends) < INT16.min or max(ends) > INT16.max:", "if False:", "past int16, judged by its headers"),
    one("5", "a negative slope is refused", "headers:_rescale", "if slope == 0:", "if slope <= 0:", "negative slope"),
    one("6", "no product of keys is tried", "split:phases_of", "len(varying) + 1", "2", "two tubes, two acquisitions"),
    one("7", "a plane's place on the even grid is not looked at", "geometry:_uneven",
        "float(np.abs(places).max())", "0.0", "steps within 1 %, places not"),
    one("7", "digits that were not written excuse any step", "geometry:position_tolerance",
        "min(stack.unit, DIGIT_TOLERANCE * spacing)", "stack.unit", "whole millimetres, one plane off"),
    one("7", "a shift that is not linear is called a tilt", "geometry:_shifted", "if rest <= tolerance:", "if True:",
        "one plane shifted"),
    one("9", "a position of two values is filled up", "elements:decimals_of", "if len(parts) != count:",
        "parts += ['0'] * (count - len(parts))\n    if len(parts) != count:", "two values"),
    one("9", "decimal commas are read", "elements:decimals_of", 'raw.value.decode("latin-1").split',
        'raw.value.decode("latin-1").replace(",", ".").split', "decimal commas"),
    one("9", "an infinite position passes", "elements:decimals_of",
        "if not all(math.isfinite(value) for value in values):", "if False:", "infinite position"),
    one("10", "a copy in another encoding is a conflict", "split:_same_content", "and same_pixels(a, b)", "and False",
        "copy as RLE"),
    one("10", "an instance in two series passes", "judging:Judge._verdicts", "if uid in self._shared:", "if False:",
        "instance in two series"),
    one("11", "files that are no DICOM refuse", "looking:_no_dicom", 'VerdictKind.SET_ASIDE, "not',
        'VerdictKind.REJECT, "not', "text beside"),
    more("12", "an unreadable file is left out of its series",
         Edit("index:Index.broken", "return [(entry", "return [] and [(entry"), "unreadable plane"),
    one("13", "unsafe member names are passed over", "archives:member_name_is_unsafe", 'name.replace("\\\\", "/")',
        "''", "zip with an unsafe name"),
    one("13", "links in an archive are passed over", "archives:_refuse_if_unsafe", _MEMBERS,
        _MEMBERS.replace("if any", "if trouble != 'link' and any"), "tar with a link"),
    one("13", "archives in archives are not read", "sources:expand", ">= MAX_ARCHIVE_DEPTH", ">= 1", "zip in zip"),
    one("15", "loss that only the header tells is not recorded", "headers:_common",
        'or elements.text(ds, "LossyImageCompression") == "01"', "", "lossy before it came"),
    one("16", "shared groups come before a frame's own", "headers:_macro", "for group in groups:",
        "for group in reversed(groups):", "shared and own rescale"),
    one("P2", "patients keep their id", "identity:Pseudonyms.patient", 'return "p-" +', 'return text or "p-" +',
        "patient id"),
]  # fmt: skip
