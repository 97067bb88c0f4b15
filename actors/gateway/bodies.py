"""Bodies of HTTP requests: what OpenAI's clients send, and our own fields beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from cluster.errors import InvalidArgument, Unsupported

Body = TypeVar("Body", bound=BaseModel)
Text = Annotated[str, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]

# Parameters of OpenAI's API that change the answer, and the values of them that ask for nothing.
_NOT_OFFERED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "best_of": (1,),
    "suffix": (),
}


class OpenBody(BaseModel):
    """Unknown keys are ignored, as OpenAI's clients send ones that change nothing here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StrictBody(BaseModel):
    """Our own: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChatMessageBody(OpenBody):
    role: Text = Field(description="system (or developer), user or assistant.")
    content: Any = Field(
        description='A string, or parts `[{"type": "text", "text": ...}]`, which are joined.'
    )


class StreamOptionsBody(OpenBody):
    include_usage: bool = Field(False, description="One more chunk, before [DONE], with usage.")


class RetrievalBody(StrictBody):
    """What to look up before answering."""

    collections: list[Text] = Field(description="Names of the collections to search.")
    top_k: Whole = Field(4, description="Passages put before the model.")
    order: Literal["retrieval"] = Field("retrieval", description="Best passage first.")
    filters: dict[str, Text] = Field(
        default_factory=dict, description="Metadata that documents must have, as equal strings."
    )
    max_context_tokens: Whole | None = Field(
        None, description="Passages are dropped from the end until they fit."
    )
    query: Text | None = Field(
        None, description="What to search for; by default the last user message."
    )
    citations: bool = Field(True, description="Whether the answer lists its passages.")


class JsonSchemaBody(StrictBody):
    name: Text = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="For the caller's eyes.")
    json_schema: dict[str, Any] = Field(alias="schema", description="The answer matches it.")
    description: Text | None = None
    strict: bool | None = Field(None, description="The schema is held in any case.")


class ResponseFormatBody(StrictBody):
    """What the text of the answer is."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaBody | None = None


class ChatCompletionBody(OpenBody):
    """POST /v1/chat/completions."""

    model: Text = Field(description="One of GET /v1/models.")
    messages: list[ChatMessageBody] = Field(description="The conversation so far.")
    temperature: Real | None = Field(
        None, description="0 to 2. Absent or null is 0, greedy: unlike OpenAI's API, where it is 1."
    )
    top_p: Real | None = Field(None, description="Nucleus mass kept, above 0, at most 1.")
    top_k: Whole | None = Field(None, description="Most likely tokens kept; absent keeps all.")
    min_p: Real | None = Field(
        None,
        description="Tokens at least so likely, as a share of the likeliest, are kept: 0 to 1.",
    )
    presence_penalty: Real | None = Field(
        None, description="Taken off the logits of tokens generated before: -2 to 2."
    )
    frequency_penalty: Real | None = Field(
        None, description="Taken off each time a token was generated before: -2 to 2."
    )
    repetition_penalty: Real | None = Field(
        None, description="Divides the logits of tokens of prompt and answer: above 0, 1 is none."
    )
    logit_bias: dict[int, Real] | None = Field(
        None, description="Added to the logits of token ids: -100 to 100, at most 1024 of them."
    )
    seed: Whole | None = Field(None, description="0 to 2^63 - 1; absent draws one.")
    n: Whole | None = Field(None, description="How many answers are drawn: 1 to 16.")
    logprobs: bool | None = Field(
        None, description="How likely each token was, under the model before all rules."
    )
    top_logprobs: Whole | None = Field(
        None, description="So many likeliest tokens in the place of each: 0 to 20, with logprobs."
    )
    max_tokens: Whole | None = Field(
        None, description="Absent is the server's default, or what is left of the context."
    )
    max_completion_tokens: Whole | None = Field(None, description="The same as max_tokens.")
    min_tokens: Whole | None = Field(None, description="No stop id ends the answer before so many.")
    stop: list[Text] | None = Field(
        None, description="A string or up to 16: the answer ends before the first of them."
    )
    stop_token_ids: list[Whole] = Field(
        default_factory=list, description="Token ids that end the answer, up to 64."
    )
    stop_ids: list[Whole] = Field(default_factory=list, description="More of stop_token_ids.")
    ignore_eos: bool | None = Field(
        None, description="The model's own end of a turn does not end the answer."
    )
    response_format: ResponseFormatBody | None = Field(
        None, description="JSON, or JSON that matches a schema; without it, any text."
    )
    regex: Text | None = Field(None, description="The whole answer matches this expression.")
    stream: bool | None = Field(None, description="Server-sent events instead of one object.")
    stream_options: StreamOptionsBody | None = Field(None, description="Only with stream.")
    retrieval: RetrievalBody | None = Field(
        None, description="Absent: a plain answer of the model."
    )
    timeout_s: Real | None = Field(None, description="Seconds until nobody wants the answer.")

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop


class RetrieveBody(StrictBody):
    """POST /v1/retrieve."""

    collections: list[Text]
    query: Text
    top_k: Whole = 4
    filters: dict[str, Text] = Field(default_factory=dict)


class ProveBody(StrictBody):
    """POST /v1/prove."""

    text: Text = Field(description="Definitions and goals.")
    name: Text | None = Field(None, description="What messages call it, as a file is called.")
    language: Text | None = Field(
        None, description="smt_lib (with TIP) or prove; by default as the text begins."
    )
    mode: Text | None = Field(None, description="directed, enumerative or portfolio.")
    time_limit_s: Real | None = Field(None, description="Seconds for each goal.")
    steps: Whole | None = Field(None, description="Inference steps for each goal.")
    memory_bytes: Whole | None = Field(None, description="Memory for each goal.")
    seed: Whole | None = Field(
        None, description="The same seed and steps give the same verdicts and certificates."
    )
    certificate: bool = Field(False, description="Whether proofs come as data to be replayed.")
    explanation: bool = Field(False, description="Whether proofs come in words.")
    stream: bool = Field(False, description="Server-sent events, one for each goal.")
    timeout_s: Real | None = Field(None, description="Seconds for all goals together.")


class CollectionBody(StrictBody):
    """POST /v1/collections."""

    name: Text


class DocumentBody(StrictBody):
    id: Text = Field(description="Unique in its collection.")
    title: Text = ""
    text: Text
    metadata: dict[str, Text] = Field(default_factory=dict)


class DocumentsBody(StrictBody):
    """POST /v1/collections/{name}/documents: an idempotent upsert."""

    documents: list[DocumentBody]


def parse(body: bytes, kind: type[Body]) -> Body:
    """Raises InvalidArgument that names the field at fault, Unsupported for what is not offered."""
    try:
        content = from_json(body)
    except ValueError as error:
        raise InvalidArgument(
            f"the body is no JSON: {error}", field="body", limit="JSON in UTF-8"
        ) from None
    if not isinstance(content, dict):
        raise InvalidArgument(
            f"the body is a {type(content).__name__}", field="body", limit="a JSON object"
        )
    if issubclass(kind, ChatCompletionBody):
        _refuse_unsupported(content)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise _first_fault(error) from None


def _refuse_unsupported(content: Mapping[str, Any]) -> None:
    for name, harmless in _NOT_OFFERED.items():
        value = content.get(name)
        if value is not None and value not in harmless:
            said = " or ".join(map(repr, harmless)) or "absent"
            raise Unsupported(f"{name} is not offered here", field=name, limit=f"{said}")


def _first_fault(error: ValidationError) -> InvalidArgument:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ""
    for part in fault["loc"]:
        # Of a key that is none: the key itself was said before.
        if part == "[key]":
            continue
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    return InvalidArgument(f"{field}: {fault['msg']}", field=field, limit=fault["msg"])
