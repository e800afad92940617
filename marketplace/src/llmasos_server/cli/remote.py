"""The server that `LLMASOS_URL` names, as commands read it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import quote

from llmasos.home import server_url_and_token

if TYPE_CHECKING:
    import httpx

# The most that the server returns in one page.
PAGE = 200
CHANGE_SECONDS: Final = 600.0


class Server:
    """Calls a server's REST API."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client = client
        self.url = url

    def get(self, path: str, **query: str | int | None) -> dict[str, Any]:
        """One document.

        Args:
            path: Its path. What others wrote in it must have gone through `segment`.
            query: Its parameters; None is left out.

        Raises:
            LlmasosError: What the server returned, or that there is none.
        """
        return self._send("GET", path, query)

    def delete(self, path: str, **query: str | int | None) -> dict[str, Any]:
        """Delete what has a path; returns what the server says of it. Raises as `get`."""
        return self._send("DELETE", path, query)

    def send(self, method: Literal["POST", "PUT", "PATCH"], path: str, **document: Any) -> dict[str, Any]:
        """Send a document; returns what the server says of it. Raises as `get`."""
        return self._send(method, path, {}, document)

    def _send(
        self, method: str, path: str, query: Mapping[str, str | int | None], document: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        import httpx

        from llmasos.connection import error_of, unreachable

        given = {name: value for name, value in query.items() if value is not None}
        # Code is compiled before the answer to an install: the server's own limits end what takes too long.
        waits = httpx.USE_CLIENT_DEFAULT if document is None else httpx.Timeout(30.0, read=CHANGE_SECONDS)
        try:
            answer = self._client.request(method, path, params=given, json=document, timeout=waits)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreachable(self.url, error) from error
        try:
            returned: object = answer.json() if answer.is_success else None
        except ValueError:
            returned = None
        if not isinstance(returned, dict):
            raise error_of(b"" if answer.is_success else answer.content, answer.status_code)
        return cast("dict[str, Any]", returned)

    def items(self, path: str, most: int | None = None, **query: str | int | None) -> list[dict[str, Any]]:
        """The items of a list, over its pages; the first `most` of them, else all. Raises as `get`."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while most is None or len(found) < most:
            page = self.get(path, limit=PAGE if most is None else min(most - len(found), PAGE), cursor=cursor, **query)
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        return found


def segment(text: str) -> str:
    """A text as a part of a path; an app's id keeps its slash."""
    return quote(text, safe="/")


@contextmanager
def named_server() -> Generator[Server | None]:
    """The server that `LLMASOS_URL` or `config.toml` names; None: commands use the home of this machine."""
    named = server_url_and_token()
    if named is None:
        yield None
        return
    import httpx

    from llmasos.connection import headers_of, unreachable

    url, token = named
    try:
        client = httpx.Client(base_url=url, headers=headers_of(token), timeout=30.0, trust_env=False)
    except httpx.InvalidURL as error:
        raise unreachable(url, error) from error
    with client:
        yield Server(client, url)
