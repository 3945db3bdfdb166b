"""What the document cannot say: which files there are, what a stream's events hold, who sends what."""

from __future__ import annotations

import os
import uuid
from typing import Any

import schemathesis
from schemathesis.core import NOT_SET

FILES = os.environ["FUZZ_FILES"].split(os.pathsep)
SEEN: set[str] = set()
STREAM = "/api/v1/customers/progress/stream"


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """The stream's first event is held against the snapshot's schema; to the document it is text."""
    answer = raw_schema["paths"][STREAM]["get"]["responses"]["200"]["content"]["text/event-stream"]
    payload = {"$ref": "#/components/schemas/Progress"}
    kept = {"type": "string", "contentMediaType": "application/json", "contentSchema": payload}
    answer["schema"] = {
        "type": "object",
        "required": ["id", "data"],
        # What a reader assumes where there is no `event:` line.
        "properties": {"event": {"const": "message"}, "data": kept},
    }


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: Any) -> None:
    """Says the content type though there is no body, as clients do on every call. Valid bodies have
    a path of a file that is there, leave the identity alone, write whole numbers as such, and have
    an address that was not sent before.
    """
    if case.body is NOT_SET and case.method == "POST":
        case.headers.setdefault("Content-Type", "application/json")
    if case.headers and "If-Match" in case.headers and len(case.headers["If-Match"]) % 2:
        # None of them matches: half of the changes are to be made.
        del case.headers["If-Match"]
    if not isinstance(case.body, dict):
        return
    body = dict(case.body)
    path = body.get("filePath")
    if isinstance(path, str) and 1 <= len(path) <= 2048 and "\0" not in path:
        body["filePath"] = FILES[sum(map(ord, path)) % len(FILES)]
    if case.method == "PATCH" and isinstance(body.get("customerId"), str) and body["customerId"]:
        del body["customerId"]
    if case.method == "POST" and isinstance(body.get("email"), str):
        if body["email"] in SEEN:
            body["email"] = f"{uuid.uuid4()}@example.com"
        SEEN.add(body["email"])
    # To JSON Schema 5.0 is an integer; JavaScript writes 5.
    case.body = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in body.items()
    }
