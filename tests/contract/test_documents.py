"""The OpenAPI document and its page, offline."""

from __future__ import annotations

import json
import re

import httpx
import pytest

CALLS = {
    *(("get", "/customers"), ("post", "/customers"), ("get", "/customers/{id}")),
    *(("patch", "/customers/{id}"), ("delete", "/customers/{id}"), ("post", "/customers/sync")),
    *(("get", "/customers/progress"), ("get", "/customers/progress/stream"), ("get", "/imports")),
    *(("get", "/imports/{id}"), ("post", "/imports/{id}/cancel"), ("post", "/imports/{id}/pause")),
    *(("post", "/imports/{id}/resume"), ("get", "/imports/{id}/rejects")),
    ("get", "/imports/{id}/rejects.csv"),
}


@pytest.fixture(scope="module")
def document(api):
    answer = api.root.get("/api/docs-json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/")
    assert "json" in answer.headers["content-type"]
    return answer.json()


def operations(document):
    """Every operation: method, path below the base, what is said of it."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in ("get", "post", "patch", "delete", "put"):
                yield method, re.sub(r"{[^}]+}", "{id}", path.removeprefix("/api/v1")), operation


def test_the_three_addresses(api, document):
    """
    > Base URL `http://localhost:3000/api/v1`, Swagger UI at `/api/docs`, OpenAPI JSON at
    > `/api/docs-json`.
    """
    assert httpx.get(f"http://localhost:{api.port}/api/v1/customers").status_code == 200
    page = api.root.get("/api/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "swagger" in page.text.lower()
    assert document["openapi"].startswith("3.")


def test_the_page_needs_nobody_else(api):
    """Every address that the page names is answered here, and its policy allows no other."""
    page = api.root.get("/api/docs")
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page.text)
    names = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#]+)["']""", page.text)
    assert len(names) >= 2
    for name in names:
        if not name.startswith("data:"):
            found = api.root.get(str(httpx.URL(str(page.url)).join(name)))
            assert found.status_code == 200, name
            assert found.headers["x-content-type-options"] == "nosniff"
    policy = page.headers["content-security-policy"]
    assert "default-src" in policy
    assert "http" not in policy


def test_every_call_is_described_and_named_for_generators(document):
    found = {(method, path): operation for method, path, operation in operations(document)}
    assert set(found) >= CALLS
    names = [operation["operationId"] for operation in found.values()]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z][A-Za-z0-9]*", name), name
    for name in document["components"]["schemas"]:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", name), name


def test_every_operation_has_examples_and_error_answers(document):
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        statuses = set(operation["responses"])
        if path.startswith(("/customers", "/imports")):
            assert statuses & {"200", "201"}, where
            assert "503" in statuses, where
            if "{id}" in path:
                assert {"400", "404"} <= statuses, where
            if method in ("post", "patch"):
                assert {"400", "413", "415"} <= statuses, where
        body = operation.get("requestBody")
        if body:
            assert has_example(document, body["content"]["application/json"]), where
        for status, response in operation["responses"].items():
            for kind, media in response.get("content", {}).items():
                if kind == "application/json":
                    assert has_example(document, media), f"{where} {status}"


def has_example(document, media) -> bool:
    if "example" in media or media.get("examples"):
        return True
    schema = media.get("schema", {})
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    text = json.dumps(schema)
    return '"example' in text or all(
        has_example(document, {"schema": {"$ref": name}})
        for name in re.findall(r'"\$ref": "([^"]+)"', text)
    )


def test_every_reference_leads_somewhere(document):
    for name in re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


def test_every_answer_says_that_it_is_what_it_says(api):
    """Headers that each answer has, and one that none has."""
    for path in ("/api/v1/customers", "/api/v1/customers/0", "/nothing", "/metrics", "/api/docs"):
        headers = api.root.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["content-security-policy"], path
        assert "server" not in headers, path
