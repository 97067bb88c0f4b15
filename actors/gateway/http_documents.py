"""Collections and their documents over HTTP: JSON on one side, DocumentsService on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from actors.gateway.bodies import CollectionBody, DocumentBody, DocumentsBody, parse
from actors.gateway.body import Gateway
from actors.gateway.http_schema import takes
from actors.gateway.streams import read_body
from protos.thoth.v1 import documents_pb2 as pb

Json = dict[str, Any]


def routes(gateway: Callable[[], Gateway]) -> APIRouter:
    router = APIRouter(prefix="/v1/collections", tags=["documents"])
    _collection_routes(router, gateway)
    _document_routes(router, gateway)
    return router


def _collection_routes(router: APIRouter, gateway: Callable[[], Gateway]) -> None:
    @router.get("")
    async def list_collections() -> Json:
        found = await gateway().documents("ListCollections", pb.ListCollectionsRequest())
        return {"object": "list", "data": [_collection(c) for c in found.collections]}

    @router.post("", openapi_extra=takes(CollectionBody))
    async def create_collection(request: Request) -> JSONResponse:
        """201 when it is new, 200 when it was there."""
        raw = await read_body(request, gateway().config.gateway.max_body_bytes)
        body = parse(raw, CollectionBody)
        made = await gateway().documents(
            "CreateCollection", pb.CreateCollectionRequest(name=body.name)
        )
        content = _collection(made.collection) | {"created": made.created}
        return JSONResponse(content, status_code=201 if made.created else 200)

    @router.get("/{name}")
    async def get_collection(name: str) -> Json:
        found = await gateway().documents("GetCollection", pb.GetCollectionRequest(name=name))
        return _collection(found.collection)

    @router.delete("/{name}")
    async def delete_collection(name: str) -> Json:
        """With all its documents."""
        gone = await gateway().documents("DeleteCollection", pb.DeleteCollectionRequest(name=name))
        return {"name": name, "deleted": True, "num_documents": gone.num_documents}


def _document_routes(router: APIRouter, gateway: Callable[[], Gateway]) -> None:
    @router.post("/{name}/documents", openapi_extra=takes(DocumentsBody))
    async def upsert_documents(name: str, request: Request) -> Json:
        """Idempotent. When it returns, the documents are durable and searchable."""
        raw = await read_body(request, gateway().config.gateway.max_body_bytes)
        body = parse(raw, DocumentsBody)
        batch = pb.UpsertDocumentsRequest(
            collection=name, documents=[_to_pb(d) for d in body.documents]
        )
        done = await gateway().documents("UpsertDocuments", batch)
        return {"results": [_upserted(r) for r in done.results], "sequence": done.sequence}

    @router.get("/{name}/documents")
    async def list_documents(
        name: str, limit: int | None = Query(None, ge=0, lt=2**32), after: str = ""
    ) -> Json:
        """In byte order of their ids, without their texts; `next` is to be passed as `after`."""
        asked = pb.ListDocumentsRequest(collection=name, limit=limit, after=after)
        page = await gateway().documents("ListDocuments", asked)
        data = [_document(d) for d in page.documents]
        for entry in data:
            del entry["text"]
        return {"object": "list", "data": data, "next": page.next or None}

    @router.get("/{name}/documents/{document_id:path}")
    async def get_document(name: str, document_id: str) -> Json:
        asked = pb.GetDocumentRequest(collection=name, id=document_id)
        found = await gateway().documents("GetDocument", asked)
        return _document(found.document)

    @router.delete("/{name}/documents/{document_id:path}")
    async def delete_document(name: str, document_id: str) -> Json:
        """Idempotent: `deleted` says whether it was there."""
        asked = pb.DeleteDocumentsRequest(collection=name, ids=[document_id])
        gone = await gateway().documents("DeleteDocuments", asked)
        return {"id": document_id, "deleted": gone.num_deleted > 0, "sequence": gone.sequence}


def _collection(message: pb.Collection) -> Json:
    return {
        "name": message.name,
        "num_documents": message.num_documents,
        "num_chunks": message.num_chunks,
    }


def _to_pb(body: DocumentBody) -> pb.Document:
    return pb.Document(id=body.id, title=body.title, text=body.text, metadata=body.metadata)


def _document(message: pb.Document) -> Json:
    return {
        "id": message.id,
        "title": message.title,
        "text": message.text,
        "metadata": dict(message.metadata),
        "version": message.version,
    }


def _upserted(message: pb.UpsertResult) -> Json:
    return {
        "id": message.id,
        "version": message.version,
        "num_chunks": message.num_chunks,
        "changed": message.changed,
    }
