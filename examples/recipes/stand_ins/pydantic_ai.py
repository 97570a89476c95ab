"""For Pydantic AI."""

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


def _next(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    for part in messages[-1].parts:
        if isinstance(part, ToolReturnPart):
            return ModelResponse(parts=[TextPart(part.model_response_str())])
    return ModelResponse(parts=[ToolCallPart("request_refund", {"pnr": "QK7P2M"})])


scripted = FunctionModel(_next)
