"""Multipart bodies cut into any pieces give the same parts; a body that ends early is never taken for whole."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpipe.dicom.multipart import MultipartFaultError, boundary_of, parts

BOUNDARY = b"b-1"


def message(contents: list[bytes], preamble: bytes = b"") -> bytes:
    body = b"".join(b"--b-1\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n" for content in contents)
    return preamble + body + b"--b-1--\r\n"


def cut(body: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(n % (len(body) + 1) for n in at)})
    return [body[a:b] for a, b in itertools.pairwise(edges)]


# pieces of delimiters are what a reader trips over
CONTENT = st.lists(st.sampled_from([b"\r\n", b"--b-", b"\r\n--b", b"\0", b"-", b"x" * 40, b"\r"]), max_size=8).map(
    b"".join
)


@given(
    st.lists(CONTENT, max_size=4), st.lists(st.integers(0, 10_000), max_size=30), st.sampled_from([b"", b"hello\r\n"])
)
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same_parts(contents, at, preamble):
    found = [b"".join(part) for part in parts(cut(message(contents, preamble if contents else b""), at), BOUNDARY)]
    assert found == contents


@given(st.lists(CONTENT, min_size=1, max_size=3), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_a_body_that_ends_early_is_a_fault(contents, at):
    body = message(contents)
    body = body[: 1 + at % (len(body) - 5)]
    with pytest.raises(MultipartFaultError):
        [b"".join(part) for part in parts([body], BOUNDARY)]


def test_a_part_that_is_not_read_is_skipped():
    assert len([part for part in parts([message([b"one", b"two"])], BOUNDARY)]) == 2


def test_an_empty_body_has_no_parts():
    assert list(parts([], BOUNDARY)) == []


@pytest.mark.parametrize("body", [b"x" * 100_000, b"--b-1\r\nA: " + b"y" * 100_000], ids=["preamble", "headers"])
def test_what_stands_between_parts_has_a_limit(body):
    def endless():
        yield body
        raise AssertionError("more was asked for than the limit")

    with pytest.raises(MultipartFaultError):
        list(parts(endless(), BOUNDARY))


@pytest.mark.parametrize(
    ("text", "boundary"),
    [('multipart/related; type="application/dicom"; boundary="b 1"', b"b 1"), ("multipart/related; boundary=b", b"b"),
     ("application/dicom", None), ("multipart/form-data; boundary=b", None), ("multipart/related", None), ("", None)],
)  # fmt: skip
def test_the_boundary_stands_in_the_content_type(text, boundary):
    assert boundary_of(text) == boundary
