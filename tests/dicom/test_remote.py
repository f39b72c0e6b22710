"""URLs of network sources: what is understood, what is refused, and that nothing of a query is ever shown."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ctpipe.dicom import remote
from ctpipe.dicom.remote import addresses_of, is_loopback, is_network, parse_url
from ctpipe.errors import InputError, UsageError

WEB = "dicomweb+https://pacs.example.org/dicom-web"
PACS = "pacs://ARCHIVE@pacs.example.org:4242"


@pytest.mark.parametrize(
    ("path", "ours"),
    [(WEB, True), (PACS, True), ("dicomweb+http://127.0.0.1/x", True), ("pacs+tls://A@h:1", True), (Path(WEB), True),
     ("s3://bucket/x", False), ("/data/dicomweb", False), (Path("pacs"), False), ("https://host/x", False)],
)  # fmt: skip
def test_only_our_own_kinds_are_taken_for_network_sources(path, ours):
    assert is_network(path) is ours


def test_the_levels_of_a_dicomweb_url_become_keys():
    url = parse_url(f"{WEB}/studies/1.2/series/3.4")
    assert (url.host, url.port, url.root) == ("pacs.example.org", 443, "/dicom-web")
    assert (url.study_keys, url.series_keys) == ({"StudyInstanceUID": "1.2"}, {"SeriesInstanceUID": "3.4"})
    url = parse_url(f"{WEB}/studies/1.2/")
    assert (url.study_keys, url.series_keys) == ({"StudyInstanceUID": "1.2"}, {"Modality": "CT"})
    url = parse_url("dicomweb+https://h:8443?StudyDate=20260101-&Modality=SEG")
    assert (url.port, url.root, url.study_keys) == (8443, "", {"StudyDate": "20260101-"})
    assert url.series_keys == {"Modality": "SEG"}
    assert parse_url(Path(f"{WEB}/studies/1.2")) == parse_url(f"{WEB}/studies/1.2")


def test_the_options_of_a_pacs_url():
    url = parse_url(f"{PACS}?PatientID=4711&aet=ME")
    assert (url.called, url.calling, url.port, url.move_port, url.secure) == ("ARCHIVE", "ME", 4242, None, False)
    assert parse_url(f"{PACS}?PatientID=4711&retrieve=move").move_port == 11112
    assert parse_url(f"{PACS}?PatientID=4711&retrieve=move&port=104").move_port == 104
    assert parse_url("pacs+tls://A@h?PatientID=4711").port == 2762


@pytest.mark.parametrize(
    "text",
    [WEB, f"{WEB}?Modality=CT", f"{WEB}?PatientID=*", f"{WEB}?StudyDate=", PACS, f"{PACS}?ModalitiesInStudy=CT",
     f"{PACS}?PatientName=**"],
)  # fmt: skip
def test_a_query_for_everything_is_refused(text):
    with pytest.raises(UsageError, match=r"all of|without a value"):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    ["dicomweb+https://doe:SECRET@h/x/studies/1.2", "dicomweb+https:///x/studies/1.2", "dicomweb+ftp://h/studies/1.2",
     "dicomweb://h/studies/1.2", f"{WEB}/studies/1.2/series/../x", f"{WEB}/studies/SECRET",
     f"{WEB}/studies/1.2/series/3/instances/4",
     "dicomweb+https://h/a/../b/studies/1.2", "dicomweb+https://h/a/%2e%2e/b/studies/1.2", f"{WEB}/studies/1.2#SECRET",
     f"{WEB}?PatientID=SECRET&PatientID=2", f"{WEB}?SECRET=1", f"{WEB}?StudyInstanceUID=SECRET",
     f"{WEB}?PatientID=SECRET%0a", f"{WEB}?PatientID=SECRET%5cB", "dicomweb+https://h:SECRET/x/studies/1.2",
     "dicomweb+https://[SECRET/x", "dicomweb+http://pacs.example.org/x/studies/1.2", "pacs://h:1?PatientID=SECRET",
     "pacs://A:SECRET@h:1?PatientID=2", f"{PACS}/SECRET?PatientID=1", f"{PACS}?PatientID=SECRET&retrieve=push",
     f"{PACS}?PatientID=SECRET&port=11112", f"{PACS}?PatientID=SECRET&retrieve=move&port=99999",
     f"{PACS}?PatientID=SECRET&aet=MUCH_TOO_LONG_FOR_AN_AET", "pacs://A%0aB@h:1?PatientID=SECRET"],
)  # fmt: skip
def test_what_is_refused_is_refused_in_a_line_without_the_query(text):
    """P3, P4, X13."""
    with pytest.raises(UsageError) as caught:
        parse_url(text)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_representation_of_a_source_holds_no_query():
    """P3: values of a query may name a patient."""
    url = parse_url(f"{PACS}?PatientID=DOE4711&SeriesInstanceUID=9.8.7")
    assert "DOE4711" not in repr(url) + url.place
    assert "9.8.7" not in repr(url) + repr(remote.SeriesRef("1.2", "9.8.7"))


def resolved_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolve(*_args: object, **_kwargs: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "0.0.0.0",
     "::", "224.0.0.1", "ff02::1", "255.255.255.255", "168.63.129.16", "fd00:ec2::254", "100.100.100.200"],
)  # fmt: skip
def test_addresses_that_nobody_means_are_never_spoken_to(monkeypatch, address):
    """X8: link-local and metadata addresses, also as one of several, also where the host is listed."""
    resolved_to(monkeypatch, "192.0.2.1", address)
    for text in (f"{WEB}/studies/1.2", f"{PACS}?PatientID=1"):
        with pytest.raises(UsageError, match="link-local"):
            addresses_of(parse_url(text))
        monkeypatch.setenv("CTPIPE_NETWORK_HOSTS", "pacs.example.org")
        with pytest.raises(UsageError, match="link-local"):
            addresses_of(parse_url(text))
        monkeypatch.delenv("CTPIPE_NETWORK_HOSTS")


def test_a_server_is_allowed_by_being_named_unless_there_is_a_list(monkeypatch):
    """X8."""
    resolved_to(monkeypatch, "10.1.2.3", "10.1.2.3", "192.0.2.1")
    url = parse_url(f"{WEB}/studies/1.2")
    assert addresses_of(url) == ("10.1.2.3", "192.0.2.1")
    for listed in ("other.example.org", "pacs.example.org:8443", "example.org"):
        monkeypatch.setenv("CTPIPE_NETWORK_HOSTS", listed)
        with pytest.raises(UsageError, match="not among"):
            addresses_of(url)
    for listed in ("other, PACS.example.org", "pacs.example.org:443"):
        monkeypatch.setenv("CTPIPE_NETWORK_HOSTS", listed)
        assert addresses_of(url)


def test_plain_http_is_for_this_machine_and_for_listed_hosts(monkeypatch):
    """X8."""
    assert addresses_of(parse_url("dicomweb+http://127.0.0.1:8042/x/studies/1.2")) == ("127.0.0.1",)
    with pytest.raises(UsageError, match="without encryption"):
        parse_url("dicomweb+http://10.1.2.3/x/studies/1.2")
    resolved_to(monkeypatch, "10.1.2.3")
    with pytest.raises(UsageError, match="without encryption"):  # whatever the name says
        addresses_of(parse_url("dicomweb+http://localhost/x/studies/1.2"))
    monkeypatch.setenv("CTPIPE_NETWORK_HOSTS", "10.1.2.3")
    assert addresses_of(parse_url("dicomweb+http://10.1.2.3/x/studies/1.2")) == ("10.1.2.3",)


def test_a_host_without_an_address_is_a_line(monkeypatch):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(InputError, match="no address"):
        addresses_of(parse_url(f"{WEB}/studies/1.2"))
    assert not is_loopback("pacs.example.org")
