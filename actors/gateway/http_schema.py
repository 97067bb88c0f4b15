"""Bodies are read by hand, with a limit and with errors of our own; here OpenAPI learns of them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from actors.gateway.bodies import (
    ChatCompletionBody,
    CollectionBody,
    DocumentsBody,
    ProveBody,
    RetrieveBody,
)

_BODIES = (ChatCompletionBody, RetrieveBody, CollectionBody, DocumentsBody, ProveBody)
_REF = "#/components/schemas/{model}"


def takes(body: type[BaseModel]) -> dict[str, Any]:
    """For `openapi_extra` of a route."""
    schema = {"$ref": _REF.format(model=body.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe_bodies(app: FastAPI) -> None:
    """Puts the schemas that `takes` refers to into the app's OpenAPI document."""
    components = app.openapi().setdefault("components", {}).setdefault("schemas", {})
    for body in _BODIES:
        schema = body.model_json_schema(ref_template=_REF)
        components.update(schema.pop("$defs", {}))
        components[body.__name__] = schema
