"""The envelope of every answer, written as bytes: no model is built for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Response
from litestar.types import Receive, Scope, Send

from customer_panel.api.http.trace import trace_id

T = TypeVar("T")
VERSION = "1"
JSON = b"application/json"

Timestamp = Annotated[
    str,
    msgspec.Meta(
        examples=["2021-01-16T00:00:00.000Z"],
        extra_json_schema={"extra": {"format": "date-time"}},
    ),
]

encode = msgspec.json.Encoder().encode


class Meta(msgspec.Struct, rename="camel", frozen=True):
    """When the answer was made, and the trace id of its request."""

    timestamp: datetime
    trace_id: Annotated[str, msgspec.Meta(examples=["7f3a5c0e9b1d4e62"])]
    version: Literal["1"] = "1"


class Success(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What all answers to requests that succeeded have; subclasses add `data` and a name."""

    success: Literal[True] = True
    status_code: Annotated[int, msgspec.Meta(examples=[200])]
    message: Annotated[str, msgspec.Meta(examples=["Customer"])]
    meta: Meta


class Answer(Response[T]):
    """A finished answer. `T` is its type in the OpenAPI document.

    Litestar's own response would merge headers, cookies and encoders for each request. Here the
    headers are a list and the payload is bytes.
    """

    __slots__ = ("payload", "raw_headers")

    def __init__(
        self, payload: bytes, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.payload = payload
        self.status_code = status
        self.raw_headers = [
            (b"content-type", JSON),
            (b"content-length", str(len(payload)).encode()),
        ]
        for name, value in (headers or {}).items():
            self.raw_headers.append((name.lower().encode(), value.encode("latin-1")))

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code or 200,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": self.payload, "more_body": False})


def ok(
    message: str, payload: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> Answer[Any]:
    """`payload` (anything msgspec encodes, or JSON as msgspec.Raw) in the envelope of success."""
    return Answer(
        b'{"success":true,"statusCode":%d,"message":%b,"data":%b,%b}'
        % (status, encode(message), encode(payload), meta()),
        status=status,
        headers=headers,
    )


def meta() -> bytes:
    """The member `meta` of either envelope."""
    text = f'"meta":{{"timestamp":"{timestamp()}","traceId":"{trace_id()}","version":"{VERSION}"}}'
    return text.encode()


def timestamp(moment: datetime | None = None) -> str:
    """`moment` (default: now), which is in UTC, as the contract writes times."""
    moment = moment or datetime.now(UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
