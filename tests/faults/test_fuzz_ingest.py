"""Hostile bytes in every reader (X5, X7): the end is a verdict or a CtpipeError; no other exception, no hang over 10 s,
no growth of memory. A few hundred examples each here; `fuzz_dicom.py` runs the same targets for an hour, by hand."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mutants
import pytest
import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctpipe.errors import CtpipeError
from ctpipe.store import GroupWriter, LabelsMeta, VolumeMeta, commit, open_store
from ctpipe.volume import Grid
from ctpipe.words import LabelKind, VerdictKind

bounded = settings(
    deadline=None,  # targets.time_limit stops an example where it hangs, which a deadline does not
    suppress_health_check=list(HealthCheck),
    derandomize=True,  # the same examples each time; the long run by hand is the random one
    database=None,
)
number = st.integers(0, 2**32 - 1)
mutations = st.lists(st.tuples(number, number, number), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def _warm() -> None:
    """Imports, decoders and caches are no growth of memory."""
    for name in mutants.SYNTAXES:
        with targets.folder() as place:
            for n, plane in enumerate(mutants.plane_files(name)):
                (place / f"{n}").write_bytes(plane)
            assert targets.take(place) == [VerdictKind.ACCEPT]


@pytest.fixture(autouse=True)
def _memory(_warm: None) -> Iterator[None]:
    with targets.bounded_memory():
        yield


# ------------------------------------------------------------------------------------------------ DICOM
@pytest.mark.parametrize("syntax", mutants.SYNTAXES)
def test_a_mutated_file_ends_in_a_verdict(syntax: str) -> None:
    seen = set()

    @settings(bounded, max_examples=50)
    @given(number, mutations)
    def fuzz(which: int, changes: list[mutants.Mutation]) -> None:
        planes = mutants.plane_files(syntax)
        seen.update(targets.dicom_target(mutants.mutate(planes[which % 2 + 1], changes), syntax))

    fuzz()
    assert {VerdictKind.ACCEPT, VerdictKind.REJECT} <= seen  # neither all harmless nor all past reading


@settings(bounded, max_examples=50)
@given(st.binary(max_size=600), st.sampled_from([b"", b"\0" * 128 + b"DICM", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"]))
def test_bytes_that_were_never_dicom_end_in_a_verdict(data: bytes, head: bytes) -> None:
    targets.dicom_target(head + data, "explicit")


# ------------------------------------------------------------------------------------------------ archives
def archives() -> dict[str, bytes]:
    """A series packed in each way, once in itself."""
    files = {f"CT/{n}.dcm": data for n, data in enumerate(mutants.plane_files("explicit"))}
    made = {name: io.BytesIO() for name in ("stored.zip", "deflated.zip", "plain.tar", "packed.tar.gz", "nested.zip")}
    for name, method in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(made[name], "w", method) as archive:
            for member, data in files.items():
                archive.writestr(zipfile.ZipInfo(member), data)
    for name, mode in (("plain.tar", "w"), ("packed.tar.gz", "w:gz")):
        with tarfile.open(fileobj=made[name], mode=mode) as tar:
            for member, data in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(made["nested.zip"], "w") as archive:
        archive.writestr("inner.tar.gz", made["packed.tar.gz"].getvalue())
        archive.writestr("inner.zip", made["deflated.zip"].getvalue())
    return {name: out.getvalue() for name, out in made.items()}


ARCHIVES = archives()


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_mutated_archive_ends_in_a_verdict(name: str) -> None:
    @settings(bounded, max_examples=30)
    @given(mutations)
    def fuzz(changes: list[mutants.Mutation]) -> None:
        targets.archive_target(mutants.mutate(ARCHIVES[name], changes), name)

    assert targets.archive_target(ARCHIVES[name], name)[0] in (VerdictKind.ACCEPT, VerdictKind.REPAIR)
    fuzz()


@settings(bounded, max_examples=30)
@given(mutations)
def test_a_mutated_tar_under_a_whole_gzip_ends_in_a_verdict(changes: list[mutants.Mutation]) -> None:
    """Else the checksum of gzip catches every mutation before tar sees it."""
    data = gzip.compress(mutants.mutate(ARCHIVES["plain.tar"], changes), 1)
    targets.archive_target(data, "packed.tar.gz")


# ------------------------------------------------------------------------------------------------ the store
@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, _warm: None) -> Path:
    """A store with one of each kind of file that is read back."""
    import numpy as np
    import pandas as pd

    store = open_store(tmp_path_factory.mktemp("fuzz") / "s", mode="a")
    affine = np.array([[0, 0, 0.8, -10.0], [0, 0.7, 0, -20.0], [2.5, 0, 0, 30.0], [0, 0, 0, 1]])
    grid = Grid.from_affine((5, 20, 24), affine, "u-0123456789abcdef")
    hu = np.random.default_rng(1).integers(-1000, 1000, grid.shape).astype(np.int16)

    def put(writer: GroupWriter, voxels: Any, planes: Any = None) -> None:
        with store.lease(writer.target) as lease:
            writer.prepare()
            writer.commit([writer.write_slab(s, voxels[s.start : s.stop]) for s in writer.slabs], lease, planes)

    put(store.volume_writer(VolumeMeta("0123", grid, "int16", "p-1", "u-1", "u-2", (40.0, 400.0), {"kvp": 120})), hu,
        pd.DataFrame({"plane": range(5), "slope": [1.0] * 5}))  # fmt: skip
    meta = LabelsMeta("truth-aa", LabelKind.TRUTH, grid, {1: "liver"})
    put(store.labels_writer("0123", meta), (hu > 500).astype(np.uint8))
    unfinished = store.labels_writer("0123", LabelsMeta("beef", LabelKind.PREDICTION, grid, {1: "liver"}))
    unfinished.prepare()
    unfinished.write_slab(unfinished.slabs[0], (hu > 0).astype(np.uint8))
    store.write_run("beef", {"seconds": 5})
    (store.root / "leases" / "0123-beef.json").write_text(
        json.dumps({"owner": "x", "fencing": 7, "counter": 1, "machine": "m", "pid": 2**22 + 1, "start": 1})
    )
    whole = shutil.copytree(store.root, store.root.with_name("whole"))
    assert targets.store_target(store.root) is None
    return whole


def stored_files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != ".lock")


numbers = st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 1e308, float("inf"), float("nan")]) | st.integers(-5, 300)
texts = st.sampled_from(["../../x", "/etc/hostname", "int64", "object", "a" * 99]) | st.text(max_size=5)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def bend(document: Any, where: list[int], what: Any) -> Any:
    """The document with one thing in it replaced, removed (what is Ellipsis), or put in beside."""
    if not where or not isinstance(document, (dict, list)) or not document:
        return what
    keys = sorted(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[where[0] % len(keys)]
    if len(where) > 1 or what is not ...:
        inner = bend(document[key], where[1:], what)
        if inner is not ...:
            document[key] = inner
            return document
    del document[key]
    return document


def reseal(path: str, document: Any) -> bytes:
    """Bytes with a right digest where the file has one: what a hostile store holds, and not what rot makes."""
    holder = ("attributes", "ctpipe") if path.endswith(".zarr/zarr.json") or "labels/truth-aa/zarr.json" in path else ()
    try:
        return commit.sealed(document, *holder)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return json.dumps(document).encode()


def one_line(error: CtpipeError | None) -> str:
    """Name of the class of an error that says what is wrong in one line; "" for none."""
    assert error is None or "\n" not in str(error)
    return "" if error is None else type(error).__name__


def test_a_mutated_file_of_a_store_ends_in_a_ctpipe_error(made: Path, tmp_path: Path) -> None:
    """Rot, at any byte of any file."""
    root = shutil.copytree(made, tmp_path / "s")
    names = stored_files(made)

    @settings(bounded, max_examples=60)
    @given(number, mutations)
    def fuzz(which: int, changes: list[mutants.Mutation]) -> None:
        name = names[which % len(names)]
        (root / name).write_bytes(mutants.mutate((made / name).read_bytes(), changes))
        try:
            one_line(targets.store_target(root))
        finally:
            shutil.rmtree(root)
            shutil.copytree(made, root)

    fuzz()


def test_metadata_that_were_written_to_harm_end_in_a_ctpipe_error(made: Path, tmp_path: Path) -> None:
    """Well-formed JSON with anything in any place, its digest right: OME metadata, manifests, leases, runs, marker."""
    root = shutil.copytree(made, tmp_path / "s")
    names = [name for name in stored_files(made) if name.endswith(".json")]
    ends = set()

    @settings(bounded, max_examples=80)
    @given(number, st.lists(st.integers(0, 50), min_size=1, max_size=8), st.just(...) | anything, st.booleans())
    def fuzz(which: int, where: list[int], what: Any, right: bool) -> None:
        name = names[which % len(names)]
        document = bend(json.loads((made / name).read_bytes()), where, None if what is ... and not where else what)
        try:
            data = reseal(name, document) if right else json.dumps(document).encode()
        except (TypeError, ValueError):
            return
        (root / name).write_bytes(data)
        try:
            ends.add(one_line(targets.store_target(root)))
        finally:
            shutil.rmtree(root)
            shutil.copytree(made, root)

    fuzz()
    assert {"", "StoreFaultError"} <= ends


CTPIPE = ["attributes", "ctpipe"]
VOLUME, TRUTH = "0123.ome.zarr/zarr.json", "0123.ome.zarr/labels/truth-aa/zarr.json"
FOUND = [  # by longer runs; each once ended in a TypeError, KeyError, ValueError or in a file outside the store
    (VOLUME, [*CTPIPE, "dtype"], 100),
    (VOLUME, [*CTPIPE, "slab_planes"], "object"),
    (VOLUME, [*CTPIPE, "slab_planes"], 0),
    (VOLUME, [*CTPIPE, "voi"], [None]),
    (VOLUME, [*CTPIPE, "manifest", "arrays", "0", "shards", 0, "file"], "../../0123.ome.zarr/0/c/0/0/0"),
    (VOLUME, [*CTPIPE, "manifest", "planes", "file"], "../s/planes/0123.parquet"),
    (TRUTH, [*CTPIPE, "manifest", "arrays", "0", "shards"], [1]),
    (TRUTH, [*CTPIPE, "kind"], []),
    (TRUTH, [*CTPIPE, "classes"], {"one": "liver"}),
    (TRUTH, [*CTPIPE, "sequence"], None),
    ("runs/beef.json", ["record"], ...),
]


@pytest.mark.parametrize(("name", "keys", "what"), FOUND)
def test_metadata_that_once_did_harm_are_refused(made: Path, tmp_path: Path, name: str, keys: list, what: Any) -> None:
    root = shutil.copytree(made, tmp_path / "s")
    document = json.loads((root / name).read_bytes())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    if what is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = what
    (root / name).write_bytes(reseal(name, document))
    assert one_line(targets.store_target(root)) == "StoreFaultError"


@pytest.mark.parametrize(("key", "what"), [("fencing", "../../x"), ("pid", 10**30), ("pid", -5), ("owner", None)])
def test_a_lease_that_says_nonsense_is_nobodys(made: Path, tmp_path: Path, key: str, what: Any) -> None:
    root = shutil.copytree(made, tmp_path / "s")
    lease = root / "leases/0123-beef.json"
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {key: what}))
    assert targets.store_target(root) is None
    assert not lease.exists()  # watched, then swept


def _in_a_sequence(tag: bytes) -> bytes:
    inner = b"TTTTTT\xc8\x00" + b"abcd" * 50  # an element of a VR that does not exist
    item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
    return tag + b"SQ\0\0" + len(item).to_bytes(4, "little") + item


# found by fuzz_dicom.py and test_phi.py, cut down by hand; each once ended the whole batch
HARMFUL = {
    "transfer syntax in a sequence": lambda plane: (
        plane[:132] + _in_a_sequence(b"\x02\x00\x10\x00") + plane[plane.index(b"\x08\x00\x08\x00") :]
    ),
    "rows as text": lambda plane: plane.replace(b"\x28\x00\x10\x00US\x02\x00\x22\x00", b"\x28\x00\x10\x00LO\x02\x00ab"),
}


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_once_ended_the_batch_is_a_verdict(name: str, whole: bool) -> None:
    with targets.folder() as place, targets.time_limit():
        for number, plane in enumerate(mutants.plane_files("explicit")):
            data = HARMFUL[name](plane)
            assert data != plane
            (place / str(number)).write_bytes(data if whole or not number else plane)
        assert VerdictKind.REJECT in targets.take(place)
