"""One server's endpoint over httpx2: the only place that sends. What goes wrong comes out as a `Fault`.

Rules: nothing is sent to another origin than the endpoint's own, whatever a redirect says, for every header and token
on a request was given for that origin. No response is read past the limit, and none compressed (its size would be
anybody's guess).
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial

import anyio
import httpx2

from milepost.client.authorizing import WAITING, Patient, Waiting
from milepost.client.exchange import Silence
from milepost.client.keepalive import watching
from milepost.client.policy import Policy
from milepost.client.retrying import Fault, Known
from milepost.client.sse import ServerSent, SseParser, TooLarge
from milepost.client.telemetry import Where
from milepost.core.errors import ConfigurationError

_CUT_SHORT = ("disconnected", "closed", "incomplete", "ConnectionClosed")
"""How httpx says that a connection ended early, as opposed to a response that breaks the rules."""
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


_REST, _REST_BYTES = 0.05, 2**16
"""Seconds and bytes of a response's end that are waited for, to keep its connection: a new one costs more."""


class Response:
    """A response whose head has come."""

    def __init__(self, response: httpx2.Response, policy: Policy, silence: Silence) -> None:
        self._response = response
        self._policy = policy
        self._silence = silence
        self._scope: anyio.CancelScope | None = None
        self._patient = False
        self._raw = response.aiter_raw()
        self._parser = SseParser(policy.max_message)
        self.status = response.status_code
        self.headers = response.headers

    @property
    def is_events(self) -> bool:
        return self._content_type() == "text/event-stream"

    @property
    def is_json(self) -> bool:
        return self._content_type() == "application/json"

    @property
    def gave_signs(self) -> bool:
        """Whether comments have come that say no more than that it lives. A single one may be a greeting."""
        return self._parser.comments > 1

    def _content_type(self) -> str:
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    def be_patient(self, patient: bool) -> None:
        """While a person is asked, silence is no sign of death."""
        self._patient = patient
        if self._scope is not None:
            self._scope.deadline = self._deadline()

    def give_up(self) -> None:
        """It is known from elsewhere that nothing more will come."""
        if self._scope is not None:
            self._scope.deadline = -math.inf

    def _deadline(self) -> float:
        return float("inf") if self._patient else anyio.current_time() + self._silence()

    async def _chunk(self) -> bytes | None:
        """The next bytes, None at the end. Raises Fault: it broke, or was silent for too long; outcome unknown."""
        with anyio.CancelScope(deadline=self._deadline()) as self._scope:
            try:
                return await anext(self._raw, None)
            except (httpx2.HTTPError, httpx2.StreamError) as exc:
                raise _broke(exc) from exc
        raise _silent(self._silence())

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body, of at most `limit` bytes (default: a message's). Raises Fault."""
        limit = self._policy.max_message if limit is None else limit
        parts, size = [], 0
        while (chunk := await self._chunk()) is not None:
            size += len(chunk)
            if size > limit:
                raise Fault(Known.UNKNOWN, str(TooLarge(limit)), again=False)
            parts.append(chunk)
        return b"".join(parts)

    async def events(self) -> list[ServerSent] | None:
        """The next events (maybe none yet), None when the server has ended the stream. Raises Fault."""
        chunk = await self._chunk()
        if chunk is None:
            return None
        try:
            return self._parser.feed(chunk)
        except TooLarge as exc:
            raise Fault(Known.UNKNOWN, str(exc), again=False) from None

    async def aclose(self, *, keep: bool = False) -> None:
        """Close it. `keep`: all that matters was read; if the rest ends at once, the connection can be used again."""
        if keep:
            with anyio.move_on_after(_REST, shield=True):  # what was read counts, also at the last moment
                await self._skip()
        await self._response.aclose()

    async def _skip(self) -> None:
        left = _REST_BYTES
        try:
            while left > 0 and (chunk := await anext(self._raw, None)) is not None:
                left -= len(chunk)
        except (httpx2.HTTPError, httpx2.StreamError):
            return


class Endpoint:
    """Sends to one URL."""

    silence_is_no = False

    def __init__(self, url: str, client: httpx2.AsyncClient, policy: Policy) -> None:
        whole = httpx2.URL(url)
        self.url = whole.copy_with(username=None, password=None)  # httpx logs the URL of each request
        self._own = httpx2.BasicAuth(whole.username, whole.password) if whole.userinfo else None
        """What the URL itself holds; an `auth` of the client's goes first, as with httpx."""
        self._client = client
        self._policy = policy
        self._timeout = httpx2.Timeout(policy.connect_within, read=None)  # silence is watched here, not by httpx
        self._trace = watching(policy.vanished)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        scheme, host, port = _origin(self.url)
        return f"{scheme}://{host}" + (f":{port}" if port is not None else "")

    @property
    def where(self) -> Where:
        return Where(self.origin, self.url.host, self.url.port or {"http": 80, "https": 443}.get(self.url.scheme))

    @property
    def shown(self) -> str:
        """The URL without credentials, for people to read."""
        return shown(self.url)

    async def send(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        waiting: Waiting = nullcontext,
        silence: Silence | None = None,
    ) -> Response:
        """The response's head. The caller closes it. Raises Fault.

        `waiting`: told of waits for authorization. `silence`: default the policy's.
        """
        silence = silence or self._silence
        request = self._client.build_request(method, self.url, content=body, headers=headers, timeout=self._timeout)
        for _ in range(self._policy.max_redirects + 1):
            response = await self._send(request, waiting, silence)
            if not 300 <= response.status_code < 400:
                return self._checked(response, silence)
            await response.aclose()
            request = self._redirected(request, response)
        raise Fault(Known.REFUSED, f"more than {self._policy.max_redirects} redirects", again=False)

    def _silence(self) -> float:
        return self._policy.silence

    async def _send(self, request: httpx2.Request, waiting: Waiting, silence: Silence) -> httpx2.Response:
        try:
            with anyio.move_on_after(silence()) as scope:
                request.extensions[WAITING] = partial(_standing_still, scope, silence, waiting)
                request.extensions.setdefault("trace", self._trace)
                auth = self._client.auth or self._own
                return await self._client.send(request, stream=True, follow_redirects=False, auth=auth)
            raise _silent(silence())
        except _NOT_SENT as exc:
            distrusted = _distrusted(exc)
            reason = f"can't connect to {shown(self.url)}: {distrusted or _words(exc)}"
            raise Fault(Known.NOT_SENT, reason, again=not distrusted) from exc
        except httpx2.ProxyError as exc:
            words = _words(exc)
            reason = f"the proxy on the way to {shown(self.url)} lets nothing through: {words}"
            raise Fault(Known.NOT_SENT, reason, again=not words.startswith("4")) from exc
        except httpx2.LocalProtocolError:  # its words hold the header, maybe a token
            reason = "a header can't be sent: is there a line break or a control character in it?"
            raise Fault(Known.NOT_SENT, reason, again=False) from None
        except httpx2.HTTPError as exc:
            raise _broke(exc) from exc
        except RuntimeError as exc:
            if not self._client.is_closed:
                raise
            raise Fault(Known.NOT_SENT, "the HTTP client is closed", again=False) from exc

    def _checked(self, response: httpx2.Response, silence: Silence) -> Response:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise Fault(
                Known.UNKNOWN, f"the response is compressed ({encoding!r}) although that was ruled out", again=False
            )
        return Response(response, self._policy, silence)

    def _redirected(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Request:
        """The request that follows a redirect within the origin. Raises Fault for any other."""
        following = response.next_request
        where = response.headers.get("location", "nowhere")
        if (
            following is None
            or following.method != request.method
            or _origin(following.url) != _origin(self.url)
            or following.url.userinfo
        ):
            raise Fault(
                Known.REFUSED,
                f"the server redirects to {where[:200]!r}, which is not followed: only a 307 or 308 within "
                f"{shown(self.url)}'s own origin is. If that is the endpoint, use its URL.",
                again=False,
                status=response.status_code,
            )
        return following


@contextmanager
def _standing_still(scope: anyio.CancelScope, silence: Silence, waiting: Waiting) -> Iterator[None]:
    """While a request waits for its authorization, nothing need be heard of its server."""
    scope.deadline = math.inf
    with waiting():
        yield
    scope.deadline = anyio.current_time() + silence()


def open_http(headers: Mapping[str, str] | None, auth: httpx2.Auth | None, policy: Policy) -> httpx2.AsyncClient:
    """A client of our own, for one endpoint. Raises ConfigurationError where the environment makes none possible."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=policy.idle_connection)
    patient = Patient(auth) if auth is not None else None
    try:
        return httpx2.AsyncClient(headers=dict(headers or {}), auth=patient, limits=limits)
    except (ImportError, OSError, httpx2.InvalidURL) as exc:
        where = "the proxies or the authorities that the environment names (ALL_PROXY, SSL_CERT_FILE and their like)"
        raise ConfigurationError(f"{where} can't be used: {_words(exc)}") from exc


def _silent(seconds: float) -> Fault:
    return Fault(Known.UNKNOWN, f"nothing was heard for {seconds:g} s")


def _broke(exc: Exception) -> Fault:
    """A connection that broke may be made again; a server that speaks no HTTP will not learn it."""
    words = _words(exc)
    garbled = isinstance(exc, httpx2.RemoteProtocolError) and not any(sign in words for sign in _CUT_SHORT)
    reason = f"the server's response is no HTTP: {words}" if garbled else f"the connection broke: {words}"
    return Fault(Known.UNKNOWN, reason, again=not garbled)


def _distrusted(exc: BaseException) -> str:
    """Why no TLS can be spoken there; nothing where another try may help."""
    while exc.__cause__ is not None or exc.__context__ is not None:
        exc = exc.__cause__ or exc.__context__ or exc
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({exc.verify_message}): SSL_CERT_FILE names the authorities that are"
    if isinstance(exc, ssl.SSLError) and exc.reason == "WRONG_VERSION_NUMBER":
        return "it speaks no TLS: is it http://?"
    return ""


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def shown(url: httpx2.URL) -> str:
    """Without credentials."""
    return str(url.copy_with(username=None, password=None, query=None)) if url.userinfo or url.query else str(url)


def _words(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
