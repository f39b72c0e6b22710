"""The Prefect server that this machine is told to use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from ctpipe.errors import UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

START = "start one with `prefect server start`, then `export PREFECT_API_URL=http://127.0.0.1:4200/api`"


def server_url() -> str:
    """PREFECT_API_URL, from the environment or Prefect's profile. Raises UsageError where none is set.

    Without it Prefect would silently start a server of its own for this one process.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        raise UsageError("no Prefect server is named: PREFECT_API_URL is not set", START)
    return url


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """A client of the server. Raises UsageError where it is not named, not reachable or lost on the way."""
    import httpx
    from prefect.client.orchestration import get_client

    where = _without_secret(server_url())
    try:
        with get_client(sync_client=True) as client:
            client.hello()
            yield client
    except httpx.TransportError:
        raise UsageError(f"no Prefect server answers at {where}", START) from None
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        cure = "set PREFECT_API_AUTH_STRING" if code in (401, 403) else "see the log of the server"
        raise UsageError(f"the Prefect server at {where} answers with HTTP {code}", cure) from None


def _without_secret(url: str) -> str:
    """The URL without user name and password: it goes into messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
