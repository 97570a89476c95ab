"""Answering without elicitation: a client that declares nothing gets the question as a plain tool result,
and a tool, `continue_run`, to answer it with. Also what a run that needs a person says to its caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core.errors import CallerError
from milepost.core.records import JSONObject, Question, Reply, Run
from milepost.wire.rpc import Message

TOOL = "continue_run"

DEFINITION: Message = {
    "name": TOOL,
    "title": "Answer a waiting run",
    "description": (
        "Answers the open questions of a run that another tool of this server started, and returns what comes next: "
        "its result, or its next question. Use it when a tool's result says that it waits for answers. A run keeps "
        "waiting for days; answering it twice changes nothing."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "run_id": {"type": "string", "description": "As given in the result that asked."},
            "answers": {
                "type": "object",
                "description": (
                    "One entry per question, named as in the result that asked (q1, q2, ...): the values that its "
                    'schema wants, or {"action": "decline"} or {"action": "cancel"}.'
                ),
                "additionalProperties": {"type": "object"},
            },
        },
        "required": ["run_id"],
    },
}


def key_of(question: int) -> str:
    """The name of a question in MRTR's `inputRequests` and in `continue_run`: unique for the run's life."""
    return f"q{question}"


def question_of(key: str) -> int | None:
    """The question's id, or None for a key that is none of ours."""
    digits = key[1:]
    return int(digits) if key[:1] == "q" and digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def by_hand_result(run: Run, questions: Sequence[Question], notes: Mapping[int, str] | None = None) -> Message:
    """A tool result (handshake form) that states what the run asks and how to answer."""
    asked = [_asked(question, (notes or {}).get(question.id)) for question in questions]
    body = {"status": "input_required", "run_id": run.id, "questions": asked}
    lines = [f"{run.tool} waits for {'an answer' if len(asked) == 1 else 'answers'} before it can go on."]
    for entry in asked:
        lines.append(f"{entry['key']}: {entry['message']}")
        if "note" in entry:
            lines.append(f"  (the last answer was not accepted: {entry['note']})")
        if "schema" in entry:
            lines.append(f"  schema: {json.dumps(entry['schema'])}")
    example = {"run_id": run.id, "answers": {asked[0]["key"]: _example(questions[0])}}
    lines.append(f"To answer, call the tool {TOOL} with arguments like {json.dumps(example)}.")
    return {"content": [{"type": "text", "text": "\n".join(lines)}], "structuredContent": body, "isError": False}


def _asked(question: Question, note: str | None) -> Message:
    params = question.params
    entry: Message = {"key": key_of(question.id), "message": params.get("message") or f"({question.method})"}
    if "requestedSchema" in params:
        entry["schema"] = params["requestedSchema"]
    if "url" in params:
        entry["url"] = params["url"]
        entry["message"] += f" Open {params['url']}"
    if note:
        entry["note"] = note
    return entry


def _example(question: Question) -> Message:
    properties = (question.params.get("requestedSchema") or {}).get("properties") or {}
    return {name: f"<{name}>" for name in properties}


def stuck_result(run: Run) -> Message:
    """An error result (handshake form) that says why a run needs a person, and the way out."""
    text = (
        f"The run {run.id} of {run.tool} needs a person: {run.reason or 'no reason was recorded'}. Nothing is lost. "
        f"Its operator can go on with `milepost runs retry {run.id}` or end it with `milepost runs cancel {run.id}`; "
        "the same call then returns its result."
    )
    return {"content": [{"type": "text", "text": text}], "isError": True}


def error_result(text: str) -> Message:
    return {"content": [{"type": "text", "text": text}], "isError": True}


def replies_in(arguments: JSONObject, questions: Sequence[Question]) -> dict[int, Reply]:
    """The answers in the arguments of `continue_run`. Raises CallerError where they can't be read."""
    answers: Any = arguments.get("answers") or {}
    if not isinstance(answers, Mapping):
        raise CallerError("`answers` must be an object with one entry per question (q1, q2, ...)")
    asked = {question.id: question for question in questions}
    replies: dict[int, Reply] = {}
    for key, value in answers.items():
        number = question_of(key)
        if number is None or not isinstance(value, Mapping):
            raise CallerError(
                f"{key!r} names no question: use {', '.join(map(key_of, asked)) or 'none, nothing is open'}"
            )
        replies[number] = Reply(result=_as_result(value, asked.get(number)))
    return replies


def _as_result(value: Mapping[str, Any], question: Question | None) -> Message:
    """A whole reply as it is; bare values are the content of an accepted elicitation."""
    if question is not None and question.method != "elicitation/create":
        return dict(value)
    fields = ((question.params.get("requestedSchema") or {}).get("properties") or {}) if question else {}
    if "action" in value and ("action" not in fields or "content" in value):
        return dict(value)
    return {"action": "accept", "content": dict(value)}
