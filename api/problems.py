"""Every error as an RFC 9457 problem: a code, what happened with numbers, what to do next."""

import json
from math import ceil
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from domain.errors import EngineError

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
BLANK = "about:blank"
BODY_BYTES_MAX = 1024 * 1024
HTTP_CODES = {400: "BODY_UNREADABLE", 404: "PATH_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class FieldProblem(BaseModel):
    """One wrong field, by JSON pointer."""

    pointer: str
    detail: str


class Reason(BaseModel):
    """One of several reasons against an action."""

    code: str
    detail: str
    next_step: str = ""
    context: dict[str, Any] = Field(default_factory=dict)


class ProblemDocument(BaseModel):
    """RFC 9457, with our members. `problems` lists every reason where there are several."""

    type: str = BLANK
    title: str
    status: int
    code: str
    detail: str
    next_step: str = ""
    instance: str = ""
    retryable: bool = False
    correlation_id: str | None = None
    context: dict[str, Any] = Field(default_factory=dict)
    errors: list[FieldProblem] = Field(default_factory=list)
    problems: list[Reason] = Field(default_factory=list)


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemDocument, "description": text, "content": {MEDIA_TYPE: {}}}
    for status, text in {
        400: "The body is not JSON",
        401: "No valid token",
        404: "No such object",
        409: "The object's state forbids it, or another operation works on it",
        412: "The object is not at the version that If-Match names",
        413: "The body is too large",
        403: "Not allowed to this principal",
        422: "The request is understood and wrong",
        429: "Too many requests from this address",
        503: "A part of the engine does not answer; nothing was changed",
    }.items()
}


def problem_response(request: Request, document: ProblemDocument) -> Response:
    """The answer that carries a problem."""
    document.instance = request.url.path
    document.correlation_id = getattr(request.state, "correlation_id", None)
    wait_s = document.context.get("retry_after_s", 2)
    headers = {"Retry-After": str(ceil(wait_s))} if document.status in (429, 503) else {}
    if document.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # ASCII only: a misspelt field may be named by half a surrogate pair, which is JSON and no text.
    return Response(
        json.dumps(document.model_dump()).encode(),
        status_code=document.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def too_large() -> ProblemDocument:
    """The refusal of a body of more than `BODY_BYTES_MAX` bytes."""
    return ProblemDocument(
        title="Too large",
        status=413,
        code="BODY_TOO_LARGE",
        detail=f"the body is too large: at most {BODY_BYTES_MAX} bytes are read",
        next_step="send less in one request",
    )


def install(app: FastAPI) -> None:
    """Make every error of this app a problem document."""
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


async def _engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    document = ProblemDocument(
        title=(type(error).__doc__ or "").split(";")[0].strip().rstrip("."),
        status=_status(request, error),
        code=error.code,
        detail=error.detail,
        next_step=error.next_step,
        retryable=error.retryable,
        context=dict(error.context),
        problems=[
            Reason(
                code=one.code, detail=one.detail, next_step=one.next_step, context=dict(one.context)
            )
            for one in error.problems
        ],
    )
    return problem_response(request, document)


def _status(request: Request, error: EngineError) -> int:
    """412 where the request itself named the version (RFC 9110 §13.1.1)."""
    named = error.code == "VERSION_STALE" and "If-Match" in request.headers
    return 412 if named else error.status


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    broken = [item for item in error.errors() if item["type"] == "json_invalid"]
    if broken:
        detail = f"the body is not JSON: {broken[0]['ctx']['error']}"
        return problem_response(
            request,
            ProblemDocument(title="Malformed", status=400, code="JSON_INVALID", detail=detail),
        )
    errors = [
        FieldProblem(pointer="/" + "/".join(str(p) for p in item["loc"][1:]), detail=item["msg"])
        for item in error.errors()
    ]
    wrong = ", ".join(f"{item.pointer}: {item.detail}" for item in errors)
    document = ProblemDocument(
        title="The request itself is wrong",
        status=422,
        code="REQUEST_INVALID",
        detail=f"{len(errors)} {'field is' if len(errors) == 1 else 'fields are'} wrong: {wrong}",
        next_step="correct them; the schema is at /api/v1/docs",
        errors=errors,
    )
    return problem_response(request, document)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 413:
        return problem_response(request, too_large())
    code = HTTP_CODES.get(error.status_code, "HTTP_ERROR")
    document = ProblemDocument(
        title=str(error.detail),
        status=error.status_code,
        code=code,
        detail=f"{request.method} {request.url.path}: {error.detail}",
        next_step="the paths are listed at /api/v1/docs",
    )
    return problem_response(request, document)


async def _defect(request: Request, error: Exception) -> Response:
    log.error("request failed", path=request.url.path, exc_info=error)
    document = ProblemDocument(
        title="Defect of the engine",
        status=500,
        code="INTERNAL",
        detail="the engine failed on this request; nothing was changed",
        next_step="report it with the correlation id; the log has the rest",
    )
    answer = problem_response(request, document)
    # Defects are answered outside of every middleware, so also outside of the one that does this.
    answer.headers["Correlation-Id"] = document.correlation_id or "none"
    return answer
