"""Problem documents (RFC 9457): the form of all errors."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException as StarletteError
from starlette.routing import Match, Route

from flowkit import errors
from flowkit.adapters import encodable, path_in, plain_message_of, redacted

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:flowkit:problem:"
MOST_OF_A_VALUE = 100
"""Most characters of a wrong value that a problem shows."""


class Fault(BaseModel):
    """Fault of a request or of a graph."""

    message: str
    node_id: str | None = None
    """Node of the graph that has the fault."""
    field: str | None = None
    """Field of the request that has the fault, such as ``body.params`` or ``query.limit``."""


class ProblemDocument(BaseModel):
    """Error of a request, as RFC 9457 describes it."""

    type: str
    """Kind of the error: ``urn:flowkit:problem:NAME``."""
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = None
    """All faults of a graph or of a request that is not valid."""


class Problem(HTTPException):
    """Refusal of a request. ``detail`` is shown as it is: redact text of other packages in it."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        *,
        faults: Sequence[Fault] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.document = ProblemDocument(
            type=TYPE_PREFIX + name,
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            errors=None if faults is None else list(faults),
        )

    def response(self) -> Response:
        """Return the problem document as a response."""
        return Response(
            to_json(self.document, exclude_none=True),
            self.status_code,
            dict(self.headers or {}),
            MEDIA_TYPE,
        )


PROBLEMS: Mapping[type[errors.FlowKitError], tuple[int, str]] = {
    errors.TaskNotFound: (404, "task_not_found"),
    errors.FlowNotFound: (404, "flow_not_found"),
    errors.ScheduleNotFound: (404, "schedule_not_found"),
    errors.TriggerNotFound: (404, "trigger_not_found"),
    errors.GraphError: (422, "graph_invalid"),
    errors.NotAssigned: (403, "not_assigned"),
    errors.AlreadyDecided: (409, "already_decided"),
    errors.SignalRefused: (409, "signal_refused"),
    errors.TaskRefused: (409, "task_refused"),
    errors.ScheduleRefused: (409, "schedule_refused"),
    errors.TriggerRefused: (409, "trigger_refused"),
    errors.RecordTooLarge: (413, "record_too_large"),
    errors.MessageTooLarge: (413, "message_too_large"),
    errors.RecordRefused: (409, "record_refused"),
    errors.NodeFailure: (410, "artifact_lost"),
    errors.CorruptRecord: (500, "corrupt_record"),
    errors.PayloadError: (500, "payload_unreadable"),
    errors.StoreUnavailable: (503, "store_unavailable"),
    errors.BusError: (503, "bus_unavailable"),
    errors.NotRunning: (503, "stopping"),
    errors.FlowKitError: (500, "internal_error"),
}
"""Status and name of the problem for each error. Those of a base class hold for all below it."""


def problem_of(error: errors.FlowKitError) -> Problem:
    """Return the problem of an error of FlowKit."""
    status, name = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
    faults = None
    if isinstance(error, errors.GraphError):
        faults = [Fault(message=one.message, node_id=one.node_id) for one in error.faults]
    return Problem(status, name, redacted(str(error)), faults=faults)


def status_of(error: Exception) -> int:
    """Return the status with which an error is answered."""
    if isinstance(error, errors.FlowKitError):
        return problem_of(error).status_code
    if isinstance(error, RequestValidationError):
        return 422
    return error.status_code if isinstance(error, Problem) else 500


@contextmanager
def invalid_arguments() -> Iterator[None]:
    """Refuse a request if the verb in this block refuses its arguments."""
    try:
        yield
    except errors.StoreUnavailable:
        raise
    except errors.StoreError as error:  # a page cursor
        raise invalid_request(redacted(str(error))) from None
    except ValueError as error:
        if isinstance(error, errors.FlowKitError):
            raise
        raise invalid_request(redacted(str(error))) from None


def invalid_request(detail: str, faults: Sequence[Fault] | None = None) -> Problem:
    """Return the problem of a request with a wrong value."""
    return Problem(422, "invalid_request", detail, faults=faults)


# ---------------------------------------------------------------- handlers of the application


async def on_flowkit_error(request: Request, error: Exception) -> Response:
    """Answer an error of FlowKit."""
    assert isinstance(error, errors.FlowKitError)
    return problem_of(error).response()


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer a refusal, of this package or of the framework."""
    if isinstance(error, Problem):
        return error.response()
    assert isinstance(error, StarletteError)
    name = HTTPStatus(error.status_code).name.lower()
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return Problem(error.status_code, name, str(error.detail), headers=headers).response()


def _allowed(request: Request) -> str:
    """Return the methods of all routes of a path. The framework names those of the first alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in found for method in route.methods or ()}))


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Answer a request whose values do not match the description of its route."""
    assert isinstance(error, RequestValidationError)
    faults = [_fault_of(item, error.body) for item in error.errors()]
    detail = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:20])
    return invalid_request(detail, faults).response()


def _fault_of(item: Mapping[str, Any], body: Any) -> Fault:
    """Return the fault of an error of pydantic: the field as the client wrote it, and what is
    wrong with its value.
    """
    place, *path = path_in({"body": body}, item) if item["loc"][0] == "body" else item["loc"]
    if path[-1:] == ["[key]"]:
        del path[-2:]
    if place == "query":
        del path[1:]  # a parameter that is repeated has no index
    field = str(place)
    for step in path:
        field += f"[{step}]" if isinstance(step, int) else f".{step}"
    message = plain_message_of(item)
    value = item.get("input")
    if (
        message.startswith("must ")
        and not message.startswith("must not")
        and (value is None or isinstance(value, str | int | float))
    ):
        message += f", not {json.dumps(value, ensure_ascii=False)[:MOST_OF_A_VALUE]}"
    # A key or a text of a body may contain a lone surrogate.
    return Fault(message=encodable(redacted(message)), field=encodable(redacted(field)))


async def on_disconnect(request: Request, error: Exception) -> Response:
    """Answer a request whose body does not end: its chunks are malformed, or its client has left.

    No client reads it if the connection is closed already.
    """
    return Problem(400, "bad_request", "the connection ended before the body").response()


async def on_bug(request: Request, error: Exception) -> Response:
    """Answer an error of this package. The server logs it."""
    return Problem(500, "internal_error", "the server has a fault, and has logged it").response()
