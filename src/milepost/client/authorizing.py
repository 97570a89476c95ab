"""Authorization that takes its time: a login is a person's matter, and no sign that a server is away.

httpx2 runs an `Auth` inside the sending of a request. What it does there by itself (it waits for a person in a browser,
or for another request's login) is told here, so that the request's clocks stand still meanwhile. What it sends is timed
like any other request. And nothing is sent again unless nothing was done: an `Auth` may send a request anew that was
refused, but none that the server may have taken.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import httpx2

WAITING: Final = "milepost.waiting"
"""The extension of a request that holds its `Waiting`."""

Waiting = Callable[[], AbstractContextManager[None]]
"""Makes a context inside of which the request waits for its authorization."""


class Patient(httpx2.Auth):
    """`auth`, told apart from the network."""

    def __init__(self, auth: httpx2.Auth) -> None:
        self._auth = auth

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        waiting: Waiting = request.extensions.get(WAITING, nullcontext)
        flow = self._auth.async_auth_flow(request)
        try:
            with waiting():
                outgoing = await anext(flow)
            refused = True  # it was not sent yet
            while True:
                response = yield outgoing
                if _is_same(outgoing, request):
                    refused = _was_refused(response)
                try:
                    with waiting():
                        outgoing = await flow.asend(response)
                except StopAsyncIteration:
                    return
                if _is_same(outgoing, request) and not refused:
                    raise httpx2.ReadError("its auth wanted to send a request again that may have been done")
        finally:
            await flow.aclose()


def _is_same(outgoing: httpx2.Request, request: httpx2.Request) -> bool:
    return (outgoing.method, outgoing.url) == (request.method, request.url)


def _was_refused(response: httpx2.Response) -> bool:
    return 400 <= response.status_code < 500 and response.status_code != 408
