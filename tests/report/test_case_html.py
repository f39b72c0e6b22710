"""The page of a case stands alone, runs nothing, and shows names as they are."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from report_phantom import FakeLabels, axial_grid

from ctpipe.errors import NotThereError
from ctpipe.report import case_html
from ctpipe.scoring import evaluate_volume

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
NASTY = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \x1b[2J\u202eniam &amp; 'q'"
)


class Tags(HTMLParser):
    """Every tag with its attributes, and all text outside the style."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self._style = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if not self._style:
            self.words.append(data)


@pytest.fixture
def page(tmp_path):
    """A page with hostile text wherever text is taken."""
    (tmp_path / "case.png").write_bytes(PIXEL)
    grid = axial_grid((4, 6, 6))
    true, predicted = np.zeros((2, 4, 6, 6), np.uint8)
    true[1:3, 2:4, 2:4], predicted[2:4, 2:4, 2:4] = 1, 2
    scores = evaluate_volume(
        FakeLabels(true, grid, {1: NASTY}, f"truth-{NASTY}", NASTY),
        FakeLabels(predicted, grid, {2: NASTY, 3: f"other {NASTY}"}, f"run-{NASTY}", NASTY),
    )
    return case_html(
        tmp_path / "case.html",
        title=NASTY,
        png=tmp_path / "case.png",
        scores=scores,
        curve=tmp_path / "case.png",
        provenance={NASTY: NASTY, "run": "4be1"},
        napari_line=f"napari {NASTY}",
    )


def test_hostile_text_is_text_everywhere(page):
    """RELIABILITY X9."""
    text = page.read_text("utf-8")
    found = Tags(text)
    assert {tag for tag, _ in found.tags} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "h2",
            "p",
            "div",
            "span",
            "b",
            "pre",
            "figure",
            "img",
        ),
        *("figcaption", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    }
    allowed = {"alt", "src", "class", "lang", "charset", "content", "http-equiv", "name"}
    assert {name for _, attributes in found.tags for name in attributes} <= allowed
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
    shown = "".join(found.words)
    assert shown.count("<script>document.title='owned'</script>") >= 10
    assert "<U+001B>[2J<U+202E>niam &amp; 'q'" in shown


def test_the_page_loads_nothing_from_outside(page):
    text = page.read_text("utf-8")
    sources = [a["src"] for tag, a in Tags(text).tags if tag == "img"]
    assert len(sources) == 2
    assert all(s == "data:image/png;base64," + base64.b64encode(PIXEL).decode() for s in sources)
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_policy_forbids_scripts_and_names_the_one_style_by_its_digest(page):
    text = page.read_text("utf-8")
    policy = next(a["content"] for t, a in Tags(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search("<style>(.*?)</style>", text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy  # default-src 'none' holds


def test_the_figures_stand_in_the_page(page):
    words = " ".join(Tags(page.read_text("utf-8")).words)
    for figure in ("0.500", "0.333", "1 of 1", "4be1", "Only the prediction has other"):
        assert figure in words


def test_a_page_without_scores_shows_the_picture_alone(tmp_path):
    (tmp_path / "case.png").write_bytes(PIXEL)
    text = case_html(tmp_path / "case.html", title="case", png=tmp_path / "case.png").read_text("utf-8")
    assert "<table>" not in text
    assert text.count("<img") == 1


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(NotThereError, match=r"gone\.png"):
        case_html(tmp_path / "case.html", title="case", png=tmp_path / "gone.png")
    assert not (tmp_path / "case.html").exists()


@pytest.mark.slow
def test_a_browser_runs_nothing_of_the_page(page, tmp_path):
    """RELIABILITY X9: in a headless browser, no alert and no change of title."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    command = [browser, *flags.split(), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    title = re.search("<title>(.*?)</title>", done.stdout, re.S).group(1)
    assert title.startswith("&lt;script&gt;")
    assert "<script" not in done.stdout
