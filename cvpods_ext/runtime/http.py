"""One request of a download: which addresses and redirects are allowed, byte ranges, and what a failure means.

Proxies are those of the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY); loopback is never asked for through one.
Imports no torch.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from cvpods_ext.errors import DownloadError

OFFLINE_VARIABLES = ("PODS_OFFLINE", "HF_HUB_OFFLINE")
TIMEOUT = 15.0  # seconds without an answer, or without a byte of it
_YES = ("1", "ON", "YES", "TRUE")
_TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_HTTP_ERRORS = (OSError, http.client.HTTPException)  # URLError and timeouts are among the first


class Unreachable(DownloadError):
    """No connection at all: the name is unknown, nobody listens, or nothing answers."""


class Interrupted(DownloadError):
    """A connection that broke, or a server that asks for patience: worth another try after `wait` seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Changed(DownloadError):
    """The file is no longer the one of which a part is there."""


@dataclass(frozen=True)
class Answer:
    """The head of a response: `start` is where its body begins in the file, `total` the size of the whole file.

    `validator` is the strong ETag or the date of the file, "" if the server gives none. `complete` says that there is
    no byte after `start`. `headers` are those of the first response, before any redirect.
    """

    url: str
    start: int
    total: int | None
    validator: str
    headers: Mapping[str, str]
    body: IO[bytes]
    content_type: str = ""
    complete: bool = False


def offline() -> str:
    """The variable that forbids connections and its value, "" if none does."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").upper() in _YES:
            return f"{name}={os.environ[name]}"
    return ""


def check_address(url: str, plain_http: bool = False) -> SplitResult:
    """The parts of an address; DownloadError for one that is not fetched from.

    That is another scheme than https, except http to this machine, or with `plain_http` to any; a name and password
    in the address; and characters that no address has.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DownloadError(f"{url!r} is no address ({error})") from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\x00-\x20\x7f]", url):
        raise DownloadError(f"{url!r} is no address; it should look like https://host/path")
    if parts.username is not None:
        raise DownloadError(f"the address at {host} holds a name or password; give it without")
    if parts.scheme == "http" and not plain_http and not is_loopback(host):
        raise DownloadError(f"{url} is not encrypted, so anybody on the way can change the file; give an https address")
    return parts


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


@contextmanager
def get(
    url: str,
    start: int = 0,
    validator: str = "",
    headers: Mapping[str, str] | None = None,
    plain_http: bool = False,
    timeout: float = TIMEOUT,
) -> Iterator[Answer]:
    """The file at `url` from byte `start` on, from 0 where the server will not, or has another file than `validator`.

    Errors of `body.read` are the caller's. Raises Unreachable, Interrupted, Changed, or DownloadError for what is
    final.
    """
    own = {**(headers or {}), "Accept-Encoding": "identity"}
    if start:
        own["Range"] = f"bytes={start}-"
        if validator:
            own["If-Range"] = validator
    redirects = _Redirects(plain_http)
    request = urllib.request.Request(url, headers=own)
    check_address(url, plain_http)
    try:
        response: Any = _opener(url, redirects).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        answer = _after_the_end(error, url, start, validator)
        if answer is None:
            raise _refusal(error, url) from None
        yield answer
        return
    except _HTTP_ERRORS as error:
        raise _failure(error, url) from None
    with response:
        yield _answer(response, url, start, validator, redirects.first)


def head(
    url: str,
    headers: Mapping[str, str] | None = None,
    plain_http: bool = False,
    leave_host: bool = True,
    timeout: float = TIMEOUT,
) -> Mapping[str, str]:
    """Headers of the file at `url`, names in lower case; those of a redirect to another host unless `leave_host`.

    Raises as `get`.
    """
    check_address(url, plain_http)
    own = {**(headers or {}), "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=own, method="HEAD")
    try:
        with _opener(url, _Redirects(plain_http, leave_host)).open(request, timeout=timeout) as response:
            return _lower(response.headers)
    except urllib.error.HTTPError as error:
        if not leave_host and error.code in (301, 302, 303, 307, 308):
            return _lower(error.headers)
        raise _refusal(error, url) from None
    except _HTTP_ERRORS as error:
        raise _failure(error, url) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects that are no less safe than the address itself; a secret goes to its own host only."""

    def __init__(self, plain_http: bool, leave_host: bool = True) -> None:
        self.plain_http, self.leave_host = plain_http, leave_host
        self.first: Mapping[str, str] = {}

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The next request, None to stop at this answer."""
        self.first = self.first or _lower(headers)
        before = urlsplit(req.full_url)
        if before.scheme == "https" and urlsplit(newurl).scheme != "https":
            raise DownloadError(
                f"{_shown(req.full_url)} leads to {_shown(newurl)}, which is not encrypted: not followed"
            )
        after = check_address(newurl, self.plain_http)
        same = (before.scheme, before.netloc) == (after.scheme, after.netloc)
        if not same and not self.leave_host:
            return None
        following = urllib.request.Request(newurl, headers=dict(req.headers), method=req.get_method())
        if not same:
            for secret in ("Authorization", "Cookie"):
                following.remove_header(secret)
        return following


def _opener(url: str, redirects: _Redirects) -> urllib.request.OpenerDirector:
    proxies = {} if is_loopback(urlsplit(url).hostname or "") else None
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies), redirects)


def _answer(response: Any, url: str, start: int, validator: str, first: Mapping[str, str]) -> Answer:
    headers = _lower(response.headers)
    if headers.get("content-encoding", "identity") != "identity":
        raise DownloadError(f"{_shown(url)} is sent as {headers['content-encoding']}, which was not asked for")
    found, kind = _validator(headers), headers.get("content-type", "").partition(";")[0].strip().lower()
    length = _number(headers.get("content-length"))
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("content-range", ""))
        if match is None or int(match[1]) != start:
            raise DownloadError(f"{_shown(url)} sent another part than the one from byte {start:,} on")
        total = None if match[3] == "*" else int(match[3])
        if validator and found != validator:  # the server did not look at If-Range
            raise Changed(f"{_shown(url)} has changed meanwhile")
        return Answer(url, start, total, found, first or headers, response, kind)
    return Answer(url, 0, length, found, first or headers, response, kind)


def _after_the_end(error: urllib.error.HTTPError, url: str, start: int, validator: str) -> Answer | None:
    """What "range not satisfiable" means: there is no byte after `start`, or the file has become another one."""
    if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
        return None
    headers = _lower(error.headers)
    match = re.fullmatch(r"bytes \*/(\d+)", headers.get("content-range", ""))
    if match is None or int(match[1]) != start:
        raise Changed(f"{_shown(url)} has changed meanwhile")
    return Answer(url, start, start, validator, headers, error, complete=True)


def _refusal(error: urllib.error.HTTPError, url: str) -> DownloadError:
    """What an error status means; the answer's text is not shown, since anybody may have written it."""
    with error:
        reason = HTTPStatus(error.code).phrase if error.code in set(HTTPStatus) else "unknown status"
        text = f"{_shown(url)} answers {error.code} ({reason})"
        if error.code in _TRANSIENT:
            return Interrupted(text, _number(error.headers.get("Retry-After")) or 0.0)
        if error.code in (401, 403, 407):
            text += ": it wants a login or a licence accepted, or a proxy is in the way"
        return DownloadError(text)


def _failure(error: BaseException, url: str) -> DownloadError:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(f"{_shown(url)} has no valid certificate ({reason.verify_message})")
    text = str(getattr(reason, "strerror", None) or reason or type(reason).__name__)
    host = urlsplit(url).hostname
    if isinstance(error, urllib.error.URLError):  # before anything was answered
        return Unreachable(f"no connection to {host} ({text})")
    return Interrupted(f"the connection to {host} broke ({text})")


def _validator(headers: Mapping[str, str]) -> str:
    etag = headers.get("etag", "")
    strong = bool(etag) and not etag.startswith("W/")
    return etag if strong else headers.get("last-modified", "")


def _shown(url: str) -> str:
    """The address without its query, which may hold a signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _lower(headers: Message | Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
