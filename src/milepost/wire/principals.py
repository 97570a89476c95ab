"""Who calls, from what the SDK's auth middleware verified; never from the token's own text."""

from __future__ import annotations

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import principal_components
from starlette.types import Scope

from milepost.core.records import ANONYMOUS, LOCAL_USER, Principal


def principal_of(scope: Scope, *, single_user: bool) -> Principal:
    """The verified caller; the one local user where settings say so; else nobody.

    A token whose subject is its client's id belongs to a machine, which may speak for many people:
    its calls never share a run across connections (HAZARDS D4).
    """
    user = scope.get("user")
    if not isinstance(user, AuthenticatedUser):
        return LOCAL_USER if single_user else ANONYMOUS
    client, issuer, subject = principal_components(user.access_token)
    return Principal(
        issuer=issuer,
        subject=subject,
        client=client,
        scopes=tuple(user.scopes),
        person=subject is not None and subject != client,
    )
