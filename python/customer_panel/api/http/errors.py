"""Errors over HTTP: one table of codes, one mapping of everything that can be raised.

No answer and no log line holds a value of a row: the messages of the database quote such values, so
they are never passed on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import psycopg
import psycopg.errors
from litestar import Request
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.types import ExceptionHandlersMap

from customer_panel import errors
from customer_panel.api.http.envelope import Answer, Meta, encode, meta
from customer_panel.db.connect import disk_full, is_loss
from customer_panel.redaction import described

# By status; the only list of them.
CODES: dict[int, str] = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    503: "UNAVAILABLE",
}
RETRY_AFTER = {"Retry-After": "1"}  # seconds: server and pool try to connect every second

# The type checker cannot read the names from the table; msgspec and the OpenAPI document do.
if TYPE_CHECKING:
    Code = str
else:
    Code = Literal[tuple(CODES.values())]

logger = logging.getLogger("customer_panel.api")


class Detail(msgspec.Struct, frozen=True):
    """One field that was refused, and why."""

    field: str
    message: str


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong: a code for programs, a sentence for people."""

    code: Code
    message: str
    details: list[Detail] | None


class ErrorResponse(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """The answer to every request that failed."""

    success: Literal[False] = False
    status_code: int
    error: ErrorBody
    meta: Meta


class ApiError(Exception):
    """A request that is answered with `status` and a sentence. Raised by handlers."""

    def __init__(
        self,
        status: int,
        message: str,
        details: Iterable[Detail] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = None if details is None else list(details)
        self.headers = dict(headers or {})


def invalid(field: str, message: str) -> ApiError:
    """The 400 for one field."""
    return ApiError(400, f"{field}: {message}", [Detail(field, message)])


def unavailable(message: str = "The database cannot be reached; try again") -> ApiError:
    return ApiError(503, message, headers=RETRY_AFTER)


def error_bytes(status: int, message: str, details: Iterable[Detail] | None = None) -> bytes:
    """The envelope of an error."""
    body = ErrorBody(
        CODES.get(status) or CODES[500 if status >= 500 else 400],
        message,
        None if details is None else list(details),
    )
    return b'{"success":false,"statusCode":%d,"error":%b,%b}' % (status, encode(body), meta())


def answer(_: Request[Any, Any, Any], error: Exception) -> Answer[Any]:
    """The answer for anything that was raised."""
    shown = as_api_error(error)
    if shown.status >= 500 and shown.status != 503:
        logger.error("request failed: %s", described(error))
    payload = error_bytes(shown.status, shown.message, shown.details)
    return Answer(payload, status=shown.status, headers=shown.headers)


# An entry for Exception is found for every class, HTTPException and its subclasses included.
EXCEPTION_HANDLERS: ExceptionHandlersMap = {Exception: answer}


def as_api_error(error: Exception) -> ApiError:
    """The one mapping from what is raised to what is answered."""
    match error:
        case ApiError():
            return error
        case HTTPException(status_code=status) if status < 500:
            details = _details(error.extra)
            message = "The request is not valid" if details else _sentence(status, error.detail)
            return ApiError(status, message, details, error.headers)
        case HTTPException(status_code=503):
            return unavailable()
        case (
            errors.AlreadyRunning() | errors.Interrupted() | errors.Overtaken() | errors.ClaimLost()
        ):
            return ApiError(409, error.message)
        case errors.NoSuchImport() | errors.NoSuchCustomer():
            return ApiError(404, error.message)
        case errors.ValueTaken(field=field):
            taken = [Detail(field, "another customer has it")] if field else None
            return ApiError(409, error.message, taken)
        case errors.CustomerMoved():
            return ApiError(412, error.message)
        case errors.IdentityStays():
            return ApiError(400, error.message, [Detail("customerId", "does not change")])
        case errors.SourceError() | errors.MappingError():
            return ApiError(400, error.message)
        case errors.DatabaseError():
            return unavailable()
        case psycopg.errors.LockNotAvailable():
            return unavailable("Somebody else is writing this customer; try again")
        case psycopg.errors.QueryCanceled():
            return unavailable("The database took too long; try again")
        case _ if disk_full(error) is not None:
            return unavailable("The disk of the database is full")
        # Lost and refused connections, an exhausted pool, deadlocks, a server that shuts down.
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return unavailable()
        # A standby, most often.
        case _ if is_loss(error):
            return unavailable()
        case _:
            return ApiError(500, "Internal server error")


def responses(*statuses: int) -> dict[int, ResponseSpec]:
    """The error answers of an operation, for its OpenAPI description."""
    return {
        status: ResponseSpec(
            data_container=ErrorResponse,
            generate_examples=False,
            description=HTTPStatus(status).phrase,
            examples=[Example(summary=CODES[status], value=_example(status))],
        )
        for status in statuses
    }


def _sentence(status: int, detail: str) -> str:
    # Litestar begins some of its messages with the status.
    detail = re.sub(r"^\d{3}: ", "", detail)
    return {404: "Not found", 405: "Method not allowed"}.get(status) or detail


def _details(extra: Any) -> list[Detail] | None:
    """What Litestar found wrong with parameters."""
    if not isinstance(extra, list):
        return None
    details = [_detail(entry) for entry in extra if isinstance(entry, dict)]
    return details or None


def _detail(entry: dict[str, Any]) -> Detail:
    if entry.get("key") == "data":
        # The request has no body; the contents of one are checked by `body.decoded`.
        return Detail("body", "is required")
    message = str(entry.get("message", "is not valid"))
    if "matching regex" in message:
        message = "is not of the form that is allowed"
    # Litestar names the handler's argument; the client sent its camelCase name.
    name = re.sub("_(.)", lambda letter: letter[1].upper(), str(entry.get("key", "request")))
    return Detail(name, message.replace("`", ""))


def _example(status: int) -> ErrorResponse:
    details = [Detail("email", "is not an e-mail address")] if status == 400 else None
    return ErrorResponse(
        status_code=status,
        error=ErrorBody(CODES[status], HTTPStatus(status).phrase, details),
        meta=Meta(datetime(2026, 11, 24, 10, tzinfo=UTC), "7f3a5c0e9b1d4e62"),
    )
