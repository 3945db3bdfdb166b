"""An evening with a frontend that was written for the old backend and knows nothing of this one."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest

from support.customers import csv

OLD = {
    *("id", "customerId", "firstName", "lastName", "company", "city", "country", "phone1"),
    *("phone2", "email", "subscriptionDate", "website", "aboutCustomer", "createdAt", "updatedAt"),
}


class Frontend:
    """Its calls: one header, one address, and only the fields it has always read."""

    def __init__(self, port: int) -> None:
        self.http = httpx.Client(
            base_url=f"http://localhost:{port}/api/v1",
            headers={"Content-Type": "application/json", "Origin": "http://localhost:5173"},
        )

    def call(self, method: str, path: str, body=None, params=None):
        answer = self.http.request(
            method, path, content=None if body is None else json.dumps(body), params=params
        )
        body = answer.json()
        if "success" in body:
            assert body["success"] is answer.is_success
            if not answer.is_success:
                raise Refused(body["statusCode"], body["error"]["code"], body["error"]["message"])
            return body["data"]
        assert answer.is_success
        return body


class Refused(Exception):
    pass


class EventSource:
    """As far as a page uses it: onmessage, and the last id when it comes back."""

    def __init__(self, http: httpx.Client, last: str | None = None) -> None:
        self.http, self.last = http, last

    def messages(self):
        headers = {"Accept": "text/event-stream"}
        if self.last:
            headers["Last-Event-ID"] = self.last
        with self.http.stream("GET", "/customers/progress/stream", headers=headers) as answer:
            assert answer.status_code == 200
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line and not line.startswith(":"):
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                elif fields:
                    self.last = fields.get("id", self.last)
                    # A message with an `event:` never reaches onmessage.
                    if "data" in fields and "event" not in fields:
                        yield json.loads(fields["data"])
                    fields = {}


@pytest.fixture(scope="module")
def page(api):
    return Frontend(api.port)


def test_a_page_of_customers(page):
    """
    > Existing Customer Panel frontends must work against this server unchanged, so the shapes below
    > are fixed.
    > Additions (new fields, new endpoints, new query parameters) are welcome; removals and renames
    > are not.
    """
    made = page.call(
        "POST",
        "/customers",
        {
            "firstName": "Ada",
            "lastName": "Lovelace",
            "email": "ada@example.com",
            "subscriptionDate": "2021-01-16T00:00:00.000Z",
            "phone1": "+44 20",
        },
    )
    assert set(made) >= OLD
    listed = page.call("GET", "/customers", params={"page": 1, "limit": 50})
    assert [customer["id"] for customer in listed["data"]] == [made["id"]]
    place = listed["pagination"]
    assert [
        place[name]
        for name in (
            "currentPage",
            "totalPages",
            "totalItems",
            "itemsPerPage",
            "hasNext",
            "hasPrev",
        )
    ] == [1, 1, 1, 50, False, False]
    assert page.call("GET", f"/customers/{made['id']}")["email"] == "ada@example.com"
    # The form sends what it read, less what the server keeps.
    form = {
        k: v for k, v in made.items() if k in OLD - {"id", "customerId", "createdAt", "updatedAt"}
    }
    changed = page.call("PATCH", f"/customers/{made['id']}", {**form, "city": "London"})
    assert changed == {**made, "city": "London", "updatedAt": changed["updatedAt"]}
    with pytest.raises(Refused, match="CONFLICT"):
        page.call("POST", "/customers", {"firstName": "B", "email": "ADA@example.com"})
    with pytest.raises(Refused, match="VALIDATION_ERROR"):
        page.call("POST", "/customers", {"firstName": "B"})
    assert page.call("DELETE", f"/customers/{made['id']}") == {"id": made["id"]}
    with pytest.raises(Refused, match="NOT_FOUND"):
        page.call("GET", f"/customers/{made['id']}")


def test_a_page_that_watches_an_import(page, files):
    assert page.call("GET", "/customers/progress")["status"] == "idle"
    path = csv(files / "old.csv", 20_000)
    seen, button = [], []
    events = EventSource(page.http)
    for message in events.messages():
        seen.append(message["type"])
        if message["type"] == "snapshot":
            button.append(message["disableSync"])
            job = page.call(
                "POST",
                "/customers/sync",
                {
                    "filePath": str(path),
                    "batchSize": 1000,
                    "progressUpdateEveryMs": 200,
                    "totalRows": 5,
                },
            )
            assert isinstance(job["id"], str)
            with pytest.raises(Refused, match="already running"):
                page.call("POST", "/customers/sync", {"filePath": str(path)})
        elif message["type"] == "progress":
            assert message["jobId"] == job["id"]
            float(message["rate"])
            int(message["rowsProcessed"])
        elif message["type"] in ("done", "error"):
            break
    assert (seen[0], seen[-1], button) == ("snapshot", "done", [False])
    assert "progress" in seen
    after = page.call("GET", "/customers/progress", params={"totalRows": 20_000, "recentLimit": 5})
    assert (after["status"], after["percent"], after["rowsInserted"]) == ("COMPLETED", 100, "20000")
    assert [set(customer) >= OLD for customer in after["recentCustomers"]] == [True] * 5
    listed = page.call("GET", "/customers", params={"page": 400, "limit": 50})
    assert len(listed["data"]) == 50
    assert listed["pagination"]["hasNext"] is False


def test_a_page_that_is_reloaded_in_the_middle(page, api, files):
    """The second page finds the first one's import running, follows it, and hears of the end."""
    path = csv(files / "reload.csv", 60_000, seed=2)
    page.call("POST", "/customers/sync", {"filePath": str(path)})
    events = EventSource(page.http)
    first = next(events.messages())
    assert first["type"] == "snapshot"
    again = EventSource(page.http, events.last)
    for message in again.messages():
        if message["type"] == "done":
            break
    # A third one, that saw the end, is not told of it again.
    assert next(EventSource(page.http, again.last).messages())["type"] == "snapshot"
    assert page.call("GET", "/customers/progress")["disableSync"] is False


def test_it_needs_nothing_installed_but_the_command(api):
    """The version of the server is the package's."""
    done = subprocess.run(
        [sys.executable, "-m", "customer_panel", "--version"], capture_output=True, check=True
    )
    version = done.stdout.decode().split()[-1]
    document = api.root.get("/api/docs-json").json()
    assert document["info"]["version"] == version
