"""For the OpenAI Agents SDK."""

from typing import Any

from agents import Model, ModelResponse, Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


class Scripted(Model):
    async def get_response(self, *args: Any, **options: Any) -> ModelResponse:
        said = options["input"]
        last = said[-1] if isinstance(said, list) else {}
        output = _text(str(last["output"])) if last.get("type") == "function_call_output" else _call()
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError  # the recipe streams nothing


def _call() -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        type="function_call", call_id="call_1", name="request_refund", arguments='{"pnr": "QK7P2M"}'
    )


def _text(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[part])
