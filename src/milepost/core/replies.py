"""Is this a reply to that question? (DESIGN section 4; MCP client/elicitation, client/sampling, client/roots.)

Content that breaks the schema is never recorded as an answer. Decline, cancel and the client's own
error are answers like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from milepost.core.records import Question, Reply

ELICIT, SAMPLE, ROOTS = "elicitation/create", "sampling/createMessage", "roots/list"
QUESTIONS = frozenset({ELICIT, SAMPLE, ROOTS})
"""The methods that are questions; nothing else a tool sends to its client is one."""

_ACTIONS = ("accept", "decline", "cancel")


def capability_for(method: str) -> str:
    """The client capability that a question needs."""
    return {ELICIT: "elicitation", SAMPLE: "sampling", ROOTS: "roots"}[method]


def fault(question: Question, reply: Reply) -> str | None:
    """Why `reply` is no answer to `question`, in words for the person who gave it; None if it is one."""
    if reply.error is not None:
        return None
    if reply.result is None:
        return "the reply has neither a result nor an error"
    if question.method == ELICIT:
        return _elicitation_fault(question.params, reply.result)
    if question.method == SAMPLE:
        return _sampling_fault(reply.result)
    roots = reply.result.get("roots")
    return None if isinstance(roots, list) else "a roots result needs a list named 'roots'"


def _elicitation_fault(params: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
    action = result.get("action")
    if action not in _ACTIONS:
        return f"'action' must be one of {', '.join(_ACTIONS)}, not {action!r}"
    schema = params.get("requestedSchema")
    if action != "accept" or schema is None:
        return None
    content = result.get("content")
    if not isinstance(content, Mapping):
        return "an accepted answer needs 'content'"
    return _schema_fault(schema, content)


def _schema_fault(schema: Mapping[str, Any], content: Mapping[str, Any]) -> str | None:
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    faults = sorted(validator.iter_errors(dict(content)), key=lambda error: list(map(str, error.path)))
    if not faults:
        return None
    return "; ".join(f"{_field(error)}{_words(error)}" for error in faults[:5])


def _field(error: Any) -> str:
    path = ".".join(str(part) for part in error.path)
    return f"{path}: " if path else ""


def _words(error: Any) -> str:
    """The validator's message without the value given: it could be anything, and goes to logs."""
    limits = {
        "enum": lambda: f"must be one of {', '.join(map(str, error.validator_value))}",
        "type": lambda: f"must be of type {error.validator_value}",
        "format": lambda: f"must be a valid {error.validator_value}",
        "minimum": lambda: f"must be at least {error.validator_value}",
        "maximum": lambda: f"must be at most {error.validator_value}",
        "minLength": lambda: f"must have at least {error.validator_value} characters",
        "maxLength": lambda: f"must have at most {error.validator_value} characters",
        "required": lambda: f"needs {', '.join(repr(n) for n in error.validator_value if n not in error.instance)}",
    }
    return limits.get(error.validator, lambda: f"breaks the rule {error.validator!r}")()


def _sampling_fault(result: Mapping[str, Any]) -> str | None:
    missing = [name for name in ("role", "content", "model") if name not in result]
    return f"a sampling result needs {', '.join(missing)}" if missing else None
