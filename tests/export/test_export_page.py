"""The page of a case: every lesion in figures, pictures of them, nothing of the patient, nothing from outside."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from exports_made import CLASSES, RUN, add_labels, made
from matplotlib.image import imread

from ctpipe.errors import InputError
from ctpipe.pipeline import export
from ctpipe.scoring import measure


class Page(HTMLParser):
    """Cells of tables, sources of pictures, all tags and words of a page."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text("utf-8")
        self.rows, self.sources, self.tags, self.words, self._in, self._cell = [], [], set(), [], "", False
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._in = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True
        if tag == "img":
            self.sources.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        self._in = ""
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._in != "style":
            self.words.append(data)
        if self._cell:
            self.rows[-1][-1] += data

    def pictures(self):
        return [imread(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in self.sources]


def page_of(case, tmp_path, labels=RUN):
    report = export(case.store, case.series.id, labels, "report", tmp_path / "case.html")
    assert [path.name for path in report.files] == ["case.html"]
    return Page(tmp_path / "case.html")


@pytest.mark.parametrize("name", ["axial", "oblique", "tilt kept"])
def test_every_lesion_is_in_the_table_with_its_figures(case_of, tmp_path, name):
    case = case_of(name)
    page = page_of(case, tmp_path)
    found = measure(lambda a, b: case.labels[a:b], case.series.read_planes, case.grid, CLASSES)
    rows = [row for row in page.rows if len(row) == 7 and row[0] != "class"]
    expected = [
        [one.name, str(one.number), f"{one.volume_ml:.2f}", f"{one.axes.long_mm:.1f} × {one.axes.short_mm:.1f}",
         f"{one.hu[0]:.0f} ± {one.hu[1]:.0f}", str(one.axes.plane), ", ".join(f"{mm:.1f}" for mm in one.centre_mm)]
        for one in found
    ]  # fmt: skip
    assert sorted(rows) == sorted(expected)
    assert "spleen" not in "".join(row[0] for row in rows)


def test_the_pictures_show_the_labels_in_their_colours(case_of, tmp_path):
    planes, solid = page_of(case_of("axial"), tmp_path).pictures()
    for picture in (planes, solid):
        green = (picture[..., 1] > picture[..., 0] + 0.15) & (picture[..., 1] > picture[..., 2])
        orange = (picture[..., 0] > picture[..., 1] + 0.15) & (picture[..., 1] > picture[..., 2])
        assert np.count_nonzero(green) > 200
        assert np.count_nonzero(orange) > 50


def test_nothing_comes_from_outside_and_nothing_of_the_patient_is_in_it(case_of, tmp_path):
    """RELIABILITY P3, X9."""
    page = page_of(case_of("axial"), tmp_path)
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(|<script|javascript", page.text)
    assert "default-src 'none'" in page.text
    assert not [word for word in ("Bäcker", "Zoë", "19700102", "A7<", "101500") if word in page.text]


def test_names_of_classes_are_text(case_of, tmp_path):
    """RELIABILITY X9."""
    nasty = "<img src=x onerror=alert(1)>\u202e"
    case = made(tmp_path / "made")
    add_labels(case.store, case.labels, {**CLASSES, 1: nasty}, name="ab" * 16)
    page = page_of(case, tmp_path, "ab" * 16)
    assert len(page.sources) == 2
    assert "\u202e" not in page.text
    assert any("<img src=x onerror=alert(1)><U+202E>" in word for word in page.words)


def test_labels_without_a_voxel_make_a_page_without_3d(tmp_path):
    case = made(tmp_path / "made")
    add_labels(case.store, np.zeros_like(case.labels), name="cd" * 16)
    page = page_of(case, tmp_path, "cd" * 16)
    assert len(page.sources) == 1
    assert "3-D" not in "".join(page.words)


def test_uneven_planes_are_refused(case_of, tmp_path):
    case = case_of("gap kept")
    with pytest.raises(InputError, match="their own positions"):
        page_of(case, tmp_path)
    assert not (tmp_path / "case.html").exists()


def test_a_browser_shows_the_page(case_of, tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine")
    page_of(case_of("axial"), tmp_path)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --hide-scrollbars --force-device-scale-factor=1"
    shot = tmp_path / "shot.png"
    command = [browser, *flags.split(), *more.split(), f"--user-data-dir={tmp_path / 'profile'}",
               "--window-size=1180,1700", "--virtual-time-budget=2000", f"--screenshot={shot}",
               (tmp_path / "case.html").as_uri()]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    picture = imread(shot)[..., :3]
    assert picture.shape[:2] == (1700, 1180)
    dark = (picture.max(axis=2) < 0.15).mean(axis=1) > 0.5  # rows of the two dark pictures
    assert dark.sum() > 300, "the style and the pictures are allowed by the page's own policy"
    assert picture[:20].min() > 0.9
