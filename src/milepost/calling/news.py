"""What the client's events are in a few words, for the person who waits. Pure."""

from __future__ import annotations

from milepost.calling.stages import took
from milepost.client.events import Answered, CircuitChanged, Event, Reconnected, Reinitialized, Resumed, Retrying

_WAYS = {
    "stream": "its stream is read on",
    "state": "from the state that the server gave",
    "re-issued": "the same call is made again",
}


def told(event: Event) -> str | None:
    """A sentence without its full stop; None: nothing that a person needs. Reasons are the server's or the system's."""
    match event:
        case Retrying(reason=reason, delay=delay):
            when = "at once" if delay < 0.05 else f"in {took(delay)}"
            return f"{reason or 'connection lost'}, trying again {when}"
        case Reconnected():
            return "connected again"
        case Reinitialized():
            return "the server had forgotten this session; a new one is open"
        case Resumed(name=name, how=how):
            return f"going on with {name}" + (f": {_WAYS.get(how, how)}" if how else "")
        case Answered(again=True, acknowledged=False):
            return "the answer that you gave is sent again"
        case CircuitChanged(state="open"):
            return "the server fails again and again, and is left alone for a while"
    return None
