"""Buckets as sources: the same series, from the same bytes, through a server that speaks S3."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import obstore
import pytest
from builders import ct_series, hu_block
from obstore.store import S3Store

import ctpipe
from ctpipe.dicom import Pseudonyms, check
from ctpipe.errors import InputError, NotThereError, UsageError

pytest.importorskip("moto.server", reason="moto[server] is not installed: no S3 server")
KEY = Pseudonyms(b"k" * 32)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """An empty bucket `hospital` on loopback, and the environment that leads to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/hospital", method="PUT"))
    from ctpipe.dicom.objects import _store

    _store.cache_clear()
    yield S3Store("hospital", virtual_hosted_style_request=False)
    _store.cache_clear()
    server.stop()


@pytest.mark.server
def test_a_prefix_gives_the_volume_that_its_files_give_from_disk(bucket: S3Store, tmp_path: Path) -> None:
    files = ct_series(hu_block())
    for number, data in enumerate(files):
        obstore.put(bucket, f"in/a b/{number}.dcm", data)
        (tmp_path / f"{number}.dcm").write_bytes(data)
    obstore.put(bucket, "elsewhere/0.dcm", files[0])
    report = ctpipe.ingest("s3://hospital/in", tmp_path / "S")
    assert not [v.detail for v in report.others]
    (volume,) = report.volumes
    (from_disk,) = [v for v in check(tmp_path) if v.source]
    assert volume.id == from_disk.source.series_id
    assert report.opened == len(files)
    again = ctpipe.ingest("s3://hospital/in", tmp_path / "S")
    assert (again.opened, [v.known for v in again.volumes]) == (0, [True])


@pytest.mark.server
def test_an_archive_in_a_bucket_is_read_as_one_on_disk(bucket: S3Store, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, data in enumerate(ct_series(hu_block())):
            archive.writestr(f"{number}", data)
    obstore.put(bucket, "ct.zip", packed.getvalue())
    report = ctpipe.ingest("s3://hospital/ct.zip", tmp_path / "S")
    series = ctpipe.open_store(tmp_path / "S")[report.volumes[0].id]
    assert np.array_equal(series.read_planes(0, 8), hu_block())


@pytest.mark.server
def test_what_is_not_there_is_one_line(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotThereError, match="no object"):
        check("s3://hospital/nothing", KEY)
    with pytest.raises(InputError, match="cannot be read"):
        check("s3://no-such-bucket/in", KEY)


def test_credentials_in_a_url_are_refused() -> None:
    """X13."""
    with pytest.raises(UsageError, match="credentials"):
        check("s3://key:secret@hospital/in", KEY)


def test_urls_of_buckets_are_told_from_paths() -> None:
    from ctpipe.dicom.objects import is_object

    assert is_object("s3://a/b")
    assert not is_object("a/b")
    assert not is_object("dicomweb+https://a/b")
    assert urlsplit("s3://a/b").scheme == "s3"
