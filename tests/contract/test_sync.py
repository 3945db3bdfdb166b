"""POST /customers/sync: what starts an import, what does not, and what is told of it."""

from __future__ import annotations

import os
import socket

import psycopg
import pytest

from support.customers import csv
from support.envelope import TIME, failed, ok
from support.waiting import held, in_parallel

JOB = {
    *("id", "filePath", "status", "bytesRead", "rowsProcessed", "rowsInserted", "lastRowHash"),
    *("startedAt", "completedAt", "error", "updatedAt"),
}
COUNTERS = ("bytesRead", "rowsProcessed", "rowsInserted")


@pytest.fixture(scope="module")
def path(files):
    return csv(files / "customers.csv", 300, dirty=0.1)


def jobs(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        (number,) = conn.execute("SELECT count(*) FROM imports").fetchone()
    return int(number)


def test_the_answer_is_the_job(api, path, shared_dsn):
    """
    > `POST /customers/sync` -> 200, body all optional: `filePath`
    >
    > `data` is the job: `id` (a string), `filePath`,
    > `status`, `bytesRead`, `rowsProcessed`, `rowsInserted`, `lastRowHash`, `startedAt`,
    > `completedAt`, `error`, `updatedAt`.
    >
    > 64-bit counters travel as **strings** (`"rowsProcessed": "12345"`).
    """
    with held(shared_dsn):
        job = api.sync(path)
        assert set(job) >= JOB
        assert job["id"].isdecimal()
        assert job["filePath"] == str(path)
        assert job["status"] == "RUNNING"
        assert [job[name] for name in COUNTERS] == ["0"] * 3
        assert TIME.fullmatch(job["startedAt"])
        assert TIME.fullmatch(job["updatedAt"])
        assert [job[name] for name in ("completedAt", "error", "lastRowHash")] == [None] * 3
    api.until("COMPLETED", job=job["id"])
    done = ok(api.get(f"/imports/{job['id']}"))
    assert set(done) == set(job)
    assert all(done[name].isdecimal() for name in COUNTERS)
    assert done["bytesRead"] == str(path.stat().st_size)
    assert int(done["rowsProcessed"]) == 300
    assert TIME.fullmatch(done["completedAt"])
    assert done["lastRowHash"]
    page = ok(api.get("/imports"))
    assert page["data"][0] == done


def test_a_body_is_not_needed(serve, dsn, tmp_path):
    """
    > default `CSV_PATH`),
    """
    path = csv(tmp_path / "default.csv", 20)
    (tmp_path / ".env").write_text("CSV_PATH=default.csv\n")
    api = serve(DATABASE_URL=dsn)
    for content in (b"", b"{}", b'{"filePath": null}'):
        job = ok(api.http.post("/customers/sync", content=content))
        assert job["filePath"] in (str(path), "default.csv")
        api.until("COMPLETED", job=job["id"])
    assert int(api.progress()["rowsProcessed"]) == 20


NUMBERS = {
    "batchSize": (100, 1_000_000),
    "progressUpdateEveryMs": (200, 30_000),
    "totalRows": (1, 10**15),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_each_number_from_both_sides(api, path, shared_dsn, name):
    """
    > `batchSize` (100..10000 was the
    > old range; accept up to 1000000; a hint: the engine may put more rows into one commit, so that
    > old clients do not slow it down), `progressUpdateEveryMs` (200..30000), `totalRows` (1..).
    """
    low, high = NUMBERS[name]
    before = jobs(shared_dsn)
    wrong = [low - 1, -low, 0, low + 0.5, str(low), True, [], 10**30]
    wrong += [] if name == "totalRows" else [high + 1]
    for value in wrong:
        body = {"filePath": str(path), name: value}
        error = failed(api.post("/customers/sync", body), 400)
        assert [detail["field"] for detail in error["details"]] == [name], value
    assert jobs(shared_dsn) == before
    for value in {low, high, 10_000 if name == "batchSize" else high}:
        job = api.sync(path, **{name: value})
        api.until("COMPLETED", job=job["id"])
    assert jobs(shared_dsn) > before


@pytest.mark.parametrize("size", [0, 2049])
def test_a_path_has_1_to_2048_characters(api, size):
    """
    > (1..2048 characters;
    """
    error = failed(api.post("/customers/sync", {"filePath": "x" * size}), 400)
    assert [detail["field"] for detail in error["details"]] == ["filePath"]


def test_the_longest_path_is_opened(api, files):
    """Many steps that lead nowhere make any path long."""
    name = csv(files / "long.csv", 10).name
    longest = f"{files}/{'./' * ((2048 - len(f'{files}/{name}')) // 2)}{name}"
    longest = longest.replace(f"/{name}", f"{'/' * (2049 - len(longest))}{name}")
    assert len(longest) == 2048
    job = ok(api.post("/customers/sync", {"filePath": longest}))
    api.until("COMPLETED", job=job["id"])


def test_while_a_job_runs_another_is_a_conflict(api, path, shared_dsn):
    """
    > While a job runs: 409, and the words "already running" in `error.message`.
    """
    with held(shared_dsn):
        job = api.sync(path)
        for body in ({"filePath": str(path)}, {"filePath": str(path), "batchSize": 500}):
            error = failed(api.post("/customers/sync", body), 409)
            assert "already running" in error["message"]
        assert api.progress()["jobId"] == job["id"]
    api.until("COMPLETED", job=job["id"])


def test_when_it_is_over_the_next_one_starts(api, path):
    """As soon as the button is enabled: `done` was told, the snapshot is COMPLETED."""
    with api.stream() as stream:
        for _ in range(25):
            job = api.sync(path)
            assert stream.until("done", "error")[-1].payload["jobId"] == job["id"]
        for _ in range(25):
            job = api.sync(path)
            api.until("COMPLETED", job=job["id"])


def test_while_the_command_line_imports_too(api, path, shared_dsn, run):
    before = jobs(shared_dsn)
    with held(shared_dsn) as let_go:
        seen = []

        def refused():
            api.until("RUNNING")
            seen.append(api.post("/customers/sync", {"filePath": str(path)}))
            let_go()

        from threading import Thread

        thread = Thread(target=refused)
        thread.start()
        done = run("import", str(path), "--json", DATABASE_URL=shared_dsn)
        thread.join()
    assert done.returncode in (0, 3), done.stderr
    assert "already running" in failed(seen[0], 409)["message"]
    assert jobs(shared_dsn) == before + 1


def test_of_many_at_once_one_starts(api, path, shared_dsn):
    before = jobs(shared_dsn)
    with held(shared_dsn):
        answers = in_parallel(8, lambda _: api.post("/customers/sync", {"filePath": str(path)}))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        for answer in answers:
            if answer.status_code == 409:
                assert "already running" in failed(answer, 409)["message"]
    api.until("COMPLETED")
    assert jobs(shared_dsn) == before + 1


def test_what_cannot_be_opened_makes_no_job(api, files, shared_dsn, tmp_path):
    """
    > No such file, a folder, a file outside the allowed
    > roots, no path at all: 400, and no job is created.
    """
    before = jobs(shared_dsn)
    outside = csv(tmp_path / "outside.csv", 10)
    (files / "link.csv").symlink_to(outside)
    (files / "folder").mkdir()
    os.mkfifo(files / "fifo.csv")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(files / "socket.csv"))
    (files / "empty.csv").touch()
    (files / "no-customers.csv").write_text("apples,pears\n1,2\n")
    wrong = [
        *(files / "nobody.csv", files / "folder", files, outside, files / ".." / "outside.csv"),
        *(files / "link.csv", files / "fifo.csv", files / "socket.csv", "/dev/null", "/dev/zero"),
        *("/proc/self/environ", "/etc/passwd", "/", ".", "..", "~", "nobody.csv", "\0", "a\0b.csv"),
        *(files / "customers.csv\0.png", "file:///etc/passwd", "https://example.com/x.csv", "-"),
        *("x" * 300, "é" * 2048, "\u202e.csv", "/".join("x" * 1000), " ", "\n"),
        *(files / "empty.csv", files / "no-customers.csv"),
    ]
    for path in wrong:
        error = failed(api.post("/customers/sync", {"filePath": str(path)}), 400)
        assert "/etc" not in error["message"]
    # No CSV_PATH: no path at all.
    failed(api.post("/customers/sync", {}), 400)
    failed(api.post("/customers/sync", {"filePath": None}), 400)
    failed(api.post("/customers/sync", {"filePath": 5}), 400)
    failed(api.post("/customers/sync", {"filepath": "x"}), 400)
    assert jobs(shared_dsn) == before
    listener.close()


def test_what_is_outside_exists_or_not_all_the_same(api, files, tmp_path):
    """An error never says whether something outside the roots exists."""
    secret = tmp_path / "secret"
    secret.mkdir()
    there = csv(secret / "customers.csv", 5)
    (files / "to-there.csv").symlink_to(there)
    (files / "to-nothing.csv").symlink_to(secret / "nothing.csv")
    (files / "to-folder").symlink_to(secret)

    def refusal(path):
        error = failed(api.post("/customers/sync", {"filePath": str(path)}), 400)
        return error["message"].replace(str(path), "PATH"), str(error["details"]).replace(
            str(path), "PATH"
        )

    outside = {
        refusal(path)
        for path in (
            *(there, secret / "nothing.csv", secret, secret / "a" / "b.csv", "/etc/shadow"),
            *("/etc/nothing", "/proc/1/environ", "/proc/1/nothing", "/root/.ssh/id_rsa"),
        )
    }
    assert len(outside) == 1, outside
    links = {refusal(files / name) for name in ("to-there.csv", "to-nothing.csv")}
    links |= {refusal(files / "to-folder" / name) for name in ("customers.csv", "nothing.csv")}
    assert len(links) == 1, links


# -- Idempotency-Key ------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_job(api, files, shared_dsn):
    # Rows of its own: one that changes nothing is over before anybody can meet it.
    path = csv(files / "night.csv", 300, seed=11)
    before = jobs(shared_dsn)
    body = {"filePath": str(path)}
    with held(shared_dsn):
        job = ok(api.post("/customers/sync", body, idempotency_key="night-1"))
        # Not "already running": this client's own start, asked for again.
        again = ok(api.post("/customers/sync", body, idempotency_key="night-1"))
        assert again["id"] == job["id"]
        failed(api.post("/customers/sync", body, idempotency_key="night-2"), 409)
        other = body | {"batchSize": 1000}
        failed(api.post("/customers/sync", other, idempotency_key="night-1"), 409)
    api.until("COMPLETED", job=job["id"])
    again = ok(api.post("/customers/sync", body, idempotency_key="night-1"))
    assert (again["id"], again["status"]) == (job["id"], "COMPLETED")
    assert jobs(shared_dsn) == before + 1
    # A refused start was none: its key starts one now.
    job = ok(api.post("/customers/sync", body, idempotency_key="night-2"))
    api.until("COMPLETED", job=job["id"])
    assert jobs(shared_dsn) == before + 2


def test_the_same_key_at_once_starts_once(api, path, shared_dsn):
    before = jobs(shared_dsn)
    body = {"filePath": str(path)}
    with held(shared_dsn):
        answers = in_parallel(
            6, lambda _: api.post("/customers/sync", body, idempotency_key="night-race")
        )
        assert {answer.status_code for answer in answers} <= {200, 409}
        assert {a.json()["data"]["id"] for a in answers if a.status_code == 200}
    api.until("COMPLETED")
    assert jobs(shared_dsn) == before + 1


def test_the_defaults_come_from_the_environment(serve, dsn, tmp_path):
    """
    > `.env` keys: `PORT` (3000), `HOST`, `DATABASE_URL`, `CSV_PATH`,
    > `IMPORT_TOTAL_ROWS`, `IMPORT_BATCH_SIZE`, `IMPORT_PROGRESS_EVERY_MS`, `IMPORT_RECENT_LIMIT`,
    > `SSE_HEARTBEAT_MS`, and the project's own.
    """
    from customer_panel.settings import SETTINGS, Settings

    path = csv(tmp_path / "all.csv", 5000)
    lines = {
        "HOST": "127.0.0.1",
        "DATABASE_URL": dsn,
        "CSV_PATH": str(path),
        "IMPORT_TOTAL_ROWS": "5000",
        "IMPORT_BATCH_SIZE": "1000",
        "IMPORT_PROGRESS_EVERY_MS": "200",
        "IMPORT_RECENT_LIMIT": "3",
        "SSE_HEARTBEAT_MS": "300",
    }
    assert {*lines, "PORT"} <= {setting.name for setting in SETTINGS}
    assert Settings.load({}, tmp_path / "none").port == 3000
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    api = serve()
    with api.stream() as stream:
        assert stream.message().kind == "snapshot"
        assert stream.message(timeout=0.6).kind == "heartbeat"
        job = ok(api.http.post("/customers/sync", content=b""))
        stream.until("done")
    done = api.until("COMPLETED", job=job["id"])
    assert done["filePath"] == str(path)
    assert len(done["recentCustomers"]) == 3
    with psycopg.connect(dsn) as conn:
        # At most that many rows to a commit: the largest id of a batch shows in no fewer commits.
        assert conn.execute("SELECT count(*) FROM customers").fetchone() == (5000,)
