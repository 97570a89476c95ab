"""What only reads: three tools, the resources and the prompts. The stateless server and the stateful one share them."""

from __future__ import annotations

import json
from datetime import date

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
    ToolAnnotations,
)

from . import domain
from .domain import Fare, FlightStatus, Itinerary, NotPossible

POLICIES = {
    "changes": "A flight may be changed until it departs. Lite pays 90 euros, Flex 25, Full nothing; a dearer flight"
    " costs the difference as well. A seat is held while the traveller decides.",
    "refunds": "Full fares are refunded in full, Flex fares at 80 % less 40 euros, Lite fares not at all. After a"
    f" bereavement or a change of ours, all is refunded. Above {domain.APPROVAL_ABOVE} euros a supervisor approves.",
    "baggage": "One cabin bag of 8 kg on every fare; one checked bag of 23 kg on Flex and Full.",
}


def find_itinerary(query: str) -> list[Itinerary]:
    """Find itineraries by record locator (such as QK7P2M) or by the traveller's name."""
    if query.upper() in domain.record_locators():
        return [domain.itinerary(query)]
    return domain.itineraries_of(query)


def flight_status(number: str, day: date) -> FlightStatus:
    """Is a flight on time, and from which gate does it leave?"""
    try:
        return domain.flight_status(number, day)
    except NotPossible as reason:
        raise ToolError(str(reason)) from reason


def fare_rules(code: str) -> Fare:
    """What a fare (LITE, FLEX, FULL) allows: the fee for a change, and what is refunded."""
    try:
        return domain.fare(code)
    except NotPossible as reason:
        raise ToolError(str(reason)) from reason


def itinerary_page(pnr: str) -> str:
    """One itinerary with its flights, as JSON."""
    try:
        return domain.itinerary(pnr).model_dump_json(indent=2)
    except NotPossible as reason:
        raise ResourceError(str(reason)) from reason


def policy_list() -> str:
    """The topics on which there is a policy, as JSON."""
    return json.dumps(sorted(POLICIES))


def policy_page(topic: str) -> str:
    """The agency's policy on one topic."""
    if topic not in POLICIES:
        raise ResourceError(f"There is no policy on {topic!r}, only on {', '.join(sorted(POLICIES))}.")
    return POLICIES[topic]


def handle_disruption(pnr: str) -> str:
    """Help a traveller whose flight is late or gone."""
    return (
        f"Look up itinerary {pnr} and the status of each of its flights. If one is delayed by more than an hour,"
        " explain the change policy (travel://policies/changes) and offer to change the flight with change_itinerary."
    )


def explain_fare(code: str) -> str:
    """Explain a fare in words that a traveller understands."""
    return f"Get the rules of fare {code} with fare_rules, and explain in three sentences what it allows and costs."


async def complete(
    ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, context: CompletionContext | None
) -> Completion | None:
    """Completes record locators, policy topics and fares."""
    known = {"pnr": domain.record_locators, "topic": lambda: sorted(POLICIES), "code": domain.fare_codes}
    if argument.name not in known:
        return None
    values = [value for value in known[argument.name]() if value.lower().startswith(argument.value.lower())]
    return Completion(values=values, total=len(values), has_more=False)


def add_reference(mcp: MCPServer) -> None:
    """Give a server all of this."""
    for function in (find_itinerary, flight_status, fare_rules):
        mcp.add_tool(function, annotations=ToolAnnotations(read_only_hint=True))
    mcp.resource("travel://itineraries/{pnr}", mime_type="application/json")(itinerary_page)
    mcp.resource("travel://policies", mime_type="application/json")(policy_list)
    mcp.resource("travel://policies/{topic}", mime_type="text/plain")(policy_page)
    for prompt in (handle_disruption, explain_fare):
        mcp.prompt()(prompt)
    mcp.completion()(complete)
