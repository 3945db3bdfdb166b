"""Answers of the API, taken out of their envelope and held against the contract on the way."""

from __future__ import annotations

import re
from typing import Any

import httpx

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CODES = {
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


def ok(response: httpx.Response, status: int = 200) -> Any:
    """The payload of a success envelope that is as the contract has it."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"success", "statusCode", "message", "data", "meta"}, body
    assert body["success"] is True
    assert body["statusCode"] == status
    assert isinstance(body["message"], str)
    assert body["message"]
    _meta(response, body)
    return body["data"]


def failed(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an error envelope that is as the contract has it."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"success", "statusCode", "error", "meta"}, body
    assert body["success"] is False
    assert body["statusCode"] == status
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "message", "details"}, error
    assert error["code"] == CODES[status]
    assert isinstance(error["message"], str)
    assert error["message"]
    if error["details"] is not None:
        assert error["details"], "null, not an empty list"
        for detail in error["details"]:
            assert set(detail) == {"field", "message"}
            assert isinstance(detail["field"], str)
            assert isinstance(detail["message"], str)
    _meta(response, body)
    return error


def _meta(response: httpx.Response, body: dict[str, Any]) -> None:
    assert response.headers["content-type"].partition(";")[0] == "application/json"
    assert set(body["meta"]) == {"timestamp", "traceId", "version"}
    assert TIME.fullmatch(body["meta"]["timestamp"])
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", body["meta"]["traceId"])
    assert body["meta"]["version"] == "1"
