"""Imports over HTTP beside the contract: busy moments, several servers, what was set aside."""

from __future__ import annotations

import base64
import csv as csv_module
import io
import time

import psycopg
import pytest

from support.api import serving
from support.compare import digest, run
from support.customers import csv
from support.envelope import failed, ok
from support.waiting import held, held_midway, in_parallel, wait_until


@pytest.fixture
def own(serve, dsn, files):
    """A server with a database of its own and small batches."""
    return serve(DATABASE_URL=dsn, IMPORT_ROOTS=files, IMPORT_BATCH_SIZE=1000)


@pytest.fixture(scope="module")
def long(files):
    return csv(files / "long.csv", 60_000, seed=4)


def rows(dsn, query):
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(query).fetchall()


def test_the_next_import_starts_the_moment_the_last_one_is_over(api, files):
    """A worker that is busy with the end of a completed import is no import that runs."""
    path = csv(files / "short.csv", 50)

    def is_over():
        (latest,) = ok(api.get("/imports", limit="1"))["data"]
        return latest["status"] == "COMPLETED"

    started = []
    for _ in range(15):
        started.append(int(api.sync(path)["id"]))
        wait_until("the import is over", is_over, 20)
    assert started == list(range(started[0], started[0] + 15))


def test_the_same_key_at_two_servers_at_once_is_one_import(serve, dsn, files):
    path = csv(files / "twice.csv", 400, seed=21)
    servers = [serve(DATABASE_URL=dsn, IMPORT_ROOTS=files) for _ in range(2)]
    with held(dsn):
        answers = in_parallel(
            2,
            lambda index: servers[index].post(
                "/customers/sync", {"filePath": str(path)}, idempotency_key="night"
            ),
        )
        assert [answer.status_code for answer in answers] == [200, 200]
        assert len({ok(answer)["id"] for answer in answers}) == 1
    servers[0].until("COMPLETED")
    assert rows(dsn, "SELECT count(*) FROM imports") == [(1,)]


def test_a_key_holds_for_an_import_that_was_gone_on_with(own, dsn, long):
    started = {}
    with held_midway(dsn, lambda: started.update(own.sync(long))) as let_go:
        ok(own.post(f"/imports/{started['id']}/pause"))
        let_go()
        own.until("PAUSED")
    body = {"filePath": str(long)}
    for _ in range(2):
        job = ok(own.post("/customers/sync", body, idempotency_key="go-on"))
        assert job["id"] == started["id"]
    own.until("COMPLETED")
    assert ok(own.post("/customers/sync", body, idempotency_key="go-on"))["id"] == started["id"]
    assert rows(dsn, "SELECT count(*) FROM imports") == [(1,)]
    # Nothing of a request is kept but hashes.
    kept = rows(dsn, "SELECT length(key_hash), length(body_hash), created_id FROM idempotency_keys")
    assert kept == [(32, 32, int(started["id"]))]


def test_an_interrupted_one_is_cancelled_at_once_while_another_runs(own, dsn, files, tmp_path):
    outside = csv(tmp_path / "outside.csv", 3000, seed=8)
    stopped_after_a_batch(outside, dsn)
    other = csv(files / "other.csv", 2000, seed=9)
    with held(dsn):
        job = own.sync(other)
        began = time.monotonic()
        cancelled = ok(own.post("/imports/1/cancel"))
        assert time.monotonic() - began < 1
        assert cancelled["status"] == "CANCELLED"
        assert cancelled["completedAt"] is not None
        assert "cancelled" in cancelled["error"]
        assert own.progress()["jobId"] == job["id"]
    own.until("COMPLETED", job=job["id"])
    assert rows(dsn, "SELECT count(*) FROM import_parked") == [(0,)]
    assert rows(
        dsn,
        "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid",
    ) == [(3,)]


def test_one_whose_file_is_gone_is_cancelled_and_gets_its_keys(own, dsn, tmp_path):
    outside = csv(tmp_path / "outside.csv", 3000, seed=8)
    stopped_after_a_batch(outside, dsn)
    outside.unlink()
    assert ok(own.get("/imports/1"))["status"] == "INTERRUPTED"
    failed(own.post("/imports/1/resume"), 400)
    assert ok(own.post("/imports/1/cancel"))["status"] == "CANCELLED"
    assert rows(
        dsn,
        "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid",
    ) == [(3,)]
    failed(own.post("/imports/1/resume"), 409)


def stopped_after_a_batch(path, dsn):
    from customer_panel.errors import Stopped
    from customer_panel.imports import Stop
    from customer_panel.imports.job import progress

    stop = Stop()

    def on_progress(progress):
        if progress.counts.inserted:
            stop.ask("INTERRUPTED")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "EVERY_S", 0)
        with pytest.raises(Stopped):
            run(path, dsn, on_progress=on_progress, stop=stop, batch_rows=500)


def test_the_command_lines_import_is_paused_and_cancelled_over_http(own, dsn, long, run):
    import threading

    done = []
    import_it = threading.Thread(
        target=lambda: done.append(run("import", str(long), "--json", DATABASE_URL=dsn))
    )
    with held_midway(dsn, import_it.start) as let_go:
        (job,) = ok(own.get("/imports"))["data"]
        asked = ok(own.post(f"/imports/{job['id']}/pause"))
        assert asked["requested"] == "PAUSED" or asked["status"] == "PAUSED"
        let_go()
        import_it.join()
    assert done[0].returncode == 1
    assert ok(own.get(f"/imports/{job['id']}"))["status"] == "PAUSED"
    assert ok(own.post(f"/imports/{job['id']}/resume"))["status"] in ("RUNNING", "COMPLETED")
    own.until("COMPLETED")


def test_pauses_and_resumes_come_to_the_same_table(own, dsn, databases, template, long):
    job = own.sync(long)["id"]
    for _ in range(5):
        time.sleep(0.05)  # some batches: any moment of the import
        if own.post(f"/imports/{job}/pause").status_code == 200:
            wait_until(
                "it is paused or over",
                lambda: ok(own.get(f"/imports/{job}"))["status"] != "RUNNING",
                20,
            )
            if own.post(f"/imports/{job}/resume").status_code != 200:
                break
    own.until("COMPLETED")
    with databases.copy(template) as other:
        run(long, other)
        assert digest(dsn) == digest(other)


def test_progress_update_every_ms_and_batch_size_reach_the_import(own, dsn, files):
    path = csv(files / "hints.csv", 3000, seed=2)
    job = own.sync(path, progressUpdateEveryMs=300, batchSize=2000)["id"]
    own.until("COMPLETED")
    assert rows(dsn, "SELECT progress_every_ms FROM imports") == [(300,)]
    assert int(ok(own.get(f"/imports/{job}"))["rowsProcessed"]) == 3000


# -- what was set aside ----------------------------------------------------------------------------

DIRTY = (
    b"Customer Id,First Name,Email,Subscription Date\n"
    b"C1,Ada,ada@example.com,2021-01-16\n"
    b",\xff\xfe,\xe4\xf6,x\n"
    b"C2,Grace\x00,grace@example.com,\n"
    b'C3,"two\nlines",c3@example.com,01/02/2021\n'
    b",no identity,nobody,\n"
)


@pytest.fixture
def dirty(api, files):
    path = files / "dirty-bytes.csv"
    path.write_bytes(DIRTY)
    job = api.sync(path)["id"]
    api.until("COMPLETED", job=job)
    return path, job


def test_rejects_show_the_record_and_its_bytes_where_the_text_is_not_the_same(api, dirty):
    _, job = dirty
    found = ok(api.get(f"/imports/{job}/rejects", limit="100"))["data"]
    assert [reject["line"] for reject in found] == sorted(reject["line"] for reject in found)
    by_line = {reject["line"]: reject for reject in found}
    assert set(found[0]) == {
        *("line", "byteFrom", "byteTo", "severity", "code", "field", "message"),
        *("raw", "rawBase64"),
    }
    bad = by_line[3]
    assert bad["raw"] == ",\ufffd\ufffd,\ufffd\ufffd,x"
    assert base64.b64decode(bad["rawBase64"]).rstrip(b"\n") == b",\xff\xfe,\xe4\xf6,x"
    assert DIRTY[bad["byteFrom"] : bad["byteTo"]].rstrip(b"\n") == b",\xff\xfe,\xe4\xf6,x"
    plain = by_line[7]
    assert (plain["raw"], plain["rawBase64"]) == (",no identity,nobody,", None)
    assert (plain["severity"], plain["code"]) == ("reject", "no_identity")
    warning = by_line[5]
    assert (warning["severity"], warning["field"]) == ("warning", "subscriptionDate")


def test_the_file_of_rejects_is_the_command_lines(api, dirty, run, tmp_path, databases, template):
    path, job = dirty
    answer = api.get(f"/imports/{job}/rejects.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="import-{job}-rejects.csv"'
    )
    with databases.copy(template) as dsn:
        run("import", str(path), "--rejects", str(tmp_path / "out.csv"), DATABASE_URL=dsn)
    assert answer.content == (tmp_path / "out.csv").read_bytes()


def test_many_rejects_come_whole_and_in_order(api, files):
    path = files / "many.csv"
    path.write_text("customer id,email\n" + "".join(f",bad{number}\n" for number in range(5000)))
    job = api.sync(path)["id"]
    api.until("COMPLETED", job=job)
    lines = list(csv_module.DictReader(io.StringIO(api.get(f"/imports/{job}/rejects.csv").text)))
    assert [line["raw"] for line in lines] == [f",bad{number}" for number in range(5000)]
    last = ok(api.get(f"/imports/{job}/rejects", limit="100", page="50"))
    assert last["data"][-1]["raw"] == ",bad4999"
    assert last["pagination"]["hasNext"] is False
    assert last["pagination"]["totalItems"] == 5000
    far = ok(api.get(f"/imports/{job}/rejects", limit="100", page="9223372036854775807"))
    assert far["data"] == []


def test_who_takes_the_file_slowly_keeps_no_session(serve, dsn, files, tmp_path):
    path = files / "slow.csv"
    path.write_text("customer id,email\n" + f",{'x' * 60_000}\n" * 2000)
    with serving(tmp_path, DATABASE_URL=dsn, IMPORT_ROOTS=files) as api:
        job = api.sync(path)["id"]
        api.until("COMPLETED", job=job)
        with api.http.stream("GET", f"/imports/{job}/rejects.csv") as answer:
            pieces = answer.iter_raw()
            next(pieces)
            busy = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state <> 'idle' AND pid <> pg_backend_pid()"
            )
            wait_until("no session is busy", lambda: rows(dsn, busy) == [(0,)], 10)
            assert api.get("/imports").status_code == 200
        assert api.root.get("/health/ready").status_code == 200


def test_a_number_that_is_no_imports_has_no_rejects(api):
    for place in ("rejects", "rejects.csv", ""):
        error = failed(api.get(f"/imports/987654321/{place}".rstrip("/")), 404)
        assert "987654321" in error["message"]
