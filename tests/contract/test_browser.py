"""A real browser, where there is one: the page of the documents, and a page with an EventSource."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest

from support.customers import csv

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

# What a frontend does, and nothing that only this server has. It tells its own server what it saw.
PAGE = """<!doctype html><title>panel</title><script>
const base = "%s/api/v1", seen = [];
const tell = (what) => fetch("/told", {method: "POST", body: JSON.stringify(what)});
const call = (method, path, body) => fetch(base + path, {
  method, body: body && JSON.stringify(body),
  headers: {"Content-Type": "application/json", "X-Trace-Id": "from-a-page"},
}).then(async (answer) => ({status: answer.status, etag: answer.headers.get("etag"), ...await answer.json()}));
window.onerror = (text) => tell({error: String(text)});
window.onunhandledrejection = (event) => tell({error: String(event.reason)});
const events = new EventSource(base + "/customers/progress/stream");
let errors = 0;
events.onerror = () => { errors += 1; };
events.onmessage = async (event) => {
  const message = JSON.parse(event.data);
  seen.push({type: message.type, id: event.lastEventId, rows: message.rowsProcessed});
  if (message.type === "snapshot" && seen.length === 1) {
    const job = await call("POST", "/customers/sync", {filePath: "%s"});
    const again = await call("POST", "/customers/sync", {filePath: "%s"});
    seen.push({type: "answer", job: job.data.id, again: again.error.message});
  }
  if (message.type === "done" || message.type === "error") {
    events.close();
    const made = await call("POST", "/customers", {firstName: "Ada", email: "ada@example.com"});
    const changed = await call("PATCH", "/customers/" + made.data.id, {city: "London"});
    const gone = await call("DELETE", "/customers/" + made.data.id);
    const nobody = await call("GET", "/customers/" + made.data.id);
    const list = await call("GET", "/customers?page=1&limit=50");
    tell({seen, errors, made, changed, gone, nobody, list});
  }
};
</script>"""


@contextlib.contextmanager
def page_server(page: str) -> Iterator[tuple[str, queue.Queue]]:
    """A server of another origin: its address, and what its page tells it."""
    reports: queue.Queue = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(page.encode(), "text/html")

        def do_POST(self) -> None:
            reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.answer(b"{}", "application/json")

        def answer(self, payload: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/", reports
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def browser(folder, *args: str) -> list[str]:
    options = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # as root it refuses to have one
    assert BROWSER
    return [BROWSER, *options, f"--user-data-dir={folder}", *args]


def test_a_page_of_another_origin_follows_an_import(api, files, tmp_path):
    path = csv(files / "browser.csv", 30_000)
    page = PAGE % (f"http://127.0.0.1:{api.port}", path, path)
    with page_server(page) as (address, reports):
        process = subprocess.Popen(
            browser(tmp_path, address), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            report = reports.get(timeout=PATIENCE_S)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    assert "error" not in report, report
    seen = report["seen"]
    kinds = [message["type"] for message in seen]
    assert kinds[0] == "snapshot"
    assert kinds[-1] == "done"
    assert {"answer", "progress"} <= set(kinds)
    assert report["errors"] == 0
    (answer,) = [message for message in seen if message["type"] == "answer"]
    assert "already running" in answer["again"]
    assert seen[-1]["rows"] == "30000"
    assert all(message["id"] for message in seen if message["type"] != "answer")
    assert [report[name]["status"] for name in ("made", "changed", "gone", "nobody", "list")] == [
        *(201, 200, 200, 404, 200)
    ]
    assert report["made"]["meta"]["traceId"] == "from-a-page"
    # A page may read the tag, else If-Match would be of no use to it.
    assert report["changed"]["etag"]
    assert report["list"]["data"]["pagination"]["totalItems"] == 30_000
    assert api.lines("from-a-page")


def test_the_documents_show_every_operation(api, tmp_path):
    """With its own scripts and styles, under the policy that the page is sent with."""
    done = subprocess.run(
        browser(
            tmp_path,
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
            "--dump-dom",
            f"http://127.0.0.1:{api.port}/api/docs",
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    document = api.root.get("/api/docs-json").json()
    shown = done.stdout
    assert document["info"]["title"] in shown
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "post", "patch", "delete"}:
            found = re.search(rf'data-path="{re.escape(path)}"', shown)
            assert found, path
            assert f"opblock-{method}" in shown
    assert shown.count("opblock-summary-method") == sum(
        len(item.keys() & {"get", "post", "patch", "delete"}) for item in document["paths"].values()
    )
    # What the policy forbids is said on the console.
    refused = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "Refused" in line]
    assert not refused
