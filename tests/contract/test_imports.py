"""Beside the contract: the history of imports, pause, resume, cancel, rejects."""

from __future__ import annotations

import csv as csv_module
import time

import psycopg
import pytest

from support.customers import create_customer, csv, customer_body
from support.envelope import TIME, failed, ok
from support.waiting import held, held_midway, in_parallel, wait_until

ROWS = 60_000


@pytest.fixture(scope="module")
def long(files):
    return csv(files / "long.csv", ROWS, seed=4)


@pytest.fixture
def own(serve, dsn, files):
    """A server with a database of its own and small batches."""
    return serve(DATABASE_URL=dsn, IMPORT_ROOTS=files, IMPORT_BATCH_SIZE=1000)


def customers(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        (number,) = conn.execute("SELECT count(*) FROM customers").fetchone()
    return int(number)


def status(api, job) -> str:
    return str(ok(api.get(f"/imports/{job}"))["status"])


def test_the_history_is_paged_newest_first(api, files):
    path = csv(files / "history.csv", 10)
    made = []
    for _ in range(5):
        made.append(api.sync(path)["id"])
        api.until("COMPLETED", job=made[-1])
    first = ok(api.get("/imports", limit="2"))
    assert [customer["id"] for customer in first["data"]] == made[:-3:-1]
    place = first["pagination"]
    assert (place["currentPage"], place["itemsPerPage"], place["totalItems"]) == (1, 2, 5)
    assert (place["totalPages"], place["hasNext"], place["hasPrev"]) == (3, True, False)
    last = ok(api.get("/imports", limit="2", page="3"))
    assert [customer["id"] for customer in last["data"]] == [made[0]]
    assert ok(api.get("/imports", page="9"))["data"] == []
    for query in ({"page": "0"}, {"limit": "0"}, {"limit": "101"}, {"page": "x"}):
        failed(api.get("/imports", **query), 400)


@pytest.mark.parametrize("place", ["", "/rejects", "/rejects.csv"])
def test_numbers_of_imports_are_judged_like_ids(api, place):
    failed(api.get(f"/imports/0{place}"), 404)
    failed(api.get(f"/imports/9223372036854775807{place}"), 404)
    for wrong in ("x", "-1", "9223372036854775808", "1.0", "%00"):
        failed(api.get(f"/imports/{wrong}{place}"), 400)


@pytest.mark.parametrize("what", ["pause", "resume", "cancel"])
def test_what_cannot_be_done_is_a_conflict(api, files, what):
    job = api.sync(csv(files / "done.csv", 10))
    api.until("COMPLETED", job=job["id"])
    failed(api.post(f"/imports/{job['id']}/{what}"), 409)
    failed(api.post(f"/imports/0/{what}"), 404)
    failed(api.post(f"/imports/x/{what}"), 400)
    failed(api.post(f"/imports/9223372036854775808/{what}"), 400)


def test_paused_stays_paused_until_it_is_resumed(own, dsn, long):
    started = {}
    with held_midway(dsn, lambda: started.update(own.sync(long))) as let_go:
        job = started["id"]
        asked = ok(own.post(f"/imports/{job}/pause"))
        assert asked["status"] in ("RUNNING", "PAUSED")
        let_go()
        own.until("PAUSED", timeout=10)
    count = customers(dsn)
    assert 0 < count < ROWS
    snapshot = own.progress()
    assert (snapshot["status"], snapshot["disableSync"]) == ("PAUSED", False)
    assert int(snapshot["rowsInserted"]) == count
    failed(own.post(f"/imports/{job}/pause"), 409)
    # A restart is no reason to go on.
    own.terminate()
    own.start().wait_ready()
    # Nothing may happen, for longer than the two seconds in which an interrupted one goes on.
    time.sleep(2.5)
    assert (status(own, job), customers(dsn)) == ("PAUSED", count)
    ok(own.post(f"/imports/{job}/resume"))
    done = own.until("COMPLETED", job=job)
    assert customers(dsn) == ROWS
    assert int(done["rowsInserted"]) == ROWS
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT count(*) FROM imports").fetchone() == (1,)


def test_pause_takes_effect_within_one_batch(own, dsn, long):
    job = own.sync(long)["id"]
    wait_until("the first rows are in", lambda: int(own.progress()["rowsInserted"]) > 0, 20)
    began = time.monotonic()
    assert ok(own.post(f"/imports/{job}/pause"))["status"] == "PAUSED"
    assert time.monotonic() - began < 2
    assert 0 < customers(dsn) < ROWS
    assert ok(own.post(f"/imports/{job}/resume"))["status"] == "RUNNING"
    own.until("COMPLETED", job=job)
    assert customers(dsn) == ROWS


def test_customers_made_in_a_first_load_are_one_with_the_files(own, dsn, long):
    """No key is built yet: an address that is in is taken all the same, and an identity that the
    file brings later is the same customer, whose values by hand stay.
    """
    lines = long.read_text().splitlines(keepends=True)
    (last,) = csv_module.DictReader([lines[0], lines[-1]])
    started = {}
    with held_midway(dsn, lambda: started.update(own.sync(long))) as let_go:
        ok(own.post(f"/imports/{started['id']}/pause"))
        let_go()
        own.until("PAUSED")
    there = own.progress()["recentCustomers"][0]
    failed(own.post("/customers", customer_body(email=there["email"].upper())), 409)
    failed(own.post("/customers", customer_body(customerId=there["customerId"])), 409)
    mine = ok(
        own.post("/customers", customer_body(customerId=last["Customer Id"], city="Mine")), 201
    )
    ok(own.post(f"/imports/{started['id']}/resume"))
    done = own.until("COMPLETED")
    assert customers(dsn) == ROWS
    assert done["rowsProcessed"] == str(ROWS)
    found = ok(own.get("/customers", customerId=mine["customerId"]))["data"]
    assert [(customer["city"], customer["email"]) for customer in found] == [
        ("Mine", mine["email"])
    ]
    # What was not said by hand is the file's.
    assert found[0]["lastName"] == last["Last Name"]
    assert ok(own.get("/customers"))["pagination"]["totalItems"] == ROWS


def test_a_write_waits_for_a_batch_at_most_and_a_read_for_nothing(serve, dsn, files):
    """From the first row to the last index."""
    path = csv(files / "busy.csv", 300_000, seed=12)
    api = serve(DATABASE_URL=dsn, IMPORT_ROOTS=files)
    made = [create_customer(api) for _ in range(4)]
    slowest = {}

    def call(index):
        """Reads and writes of one caller, until the import is over."""
        place = f"/customers/{made[index % 4]['id']}"
        calls = {
            "read": lambda: api.get(place),
            "list": lambda: api.get("/customers", page="3"),
            "create": lambda: api.post("/customers", customer_body()),
            "change": lambda: api.patch(place, {"city": "x"}),
        }
        name = list(calls)[index % 4]
        while api.progress()["status"] != "COMPLETED":
            began = time.monotonic()
            assert calls[name]().status_code in (200, 201)
            slowest[name] = max(slowest.get(name, 0), time.monotonic() - began)

    api.sync(path)
    in_parallel(4, call)
    with psycopg.connect(dsn) as conn:
        alive = conn.execute("SELECT count(*) FROM customers WHERE deleted_at IS NULL").fetchone()
    assert alive == (ok(api.get("/customers"))["pagination"]["totalItems"],)
    print(slowest)
    assert max(slowest["read"], slowest["list"]) < 0.5
    assert max(slowest["create"], slowest["change"]) < 2


def test_cancelled_keeps_its_rows_and_says_how_many(own, dsn, long):
    started = {}
    with held_midway(dsn, lambda: started.update(own.sync(long))) as let_go, own.stream() as stream:
        job = started["id"]
        ok(own.post(f"/imports/{job}/cancel"))
        let_go()
        cancelled = stream.until("error", timeout=20)[-1].payload
    snapshot = own.until("CANCELLED", timeout=10)
    count = customers(dsn)
    assert 0 < count < ROWS
    assert int(snapshot["rowsInserted"]) == count
    assert snapshot["disableSync"] is False
    assert (cancelled["jobId"], cancelled["status"]) == (job, "CANCELLED")
    assert "cancel" in cancelled["error"].lower()
    assert str(count) in cancelled["error"].replace(",", "").replace(" ", "")
    for what in ("pause", "resume", "cancel"):
        failed(own.post(f"/imports/{job}/{what}"), 409)
    with psycopg.connect(dsn) as conn:
        left = conn.execute(
            "SELECT (SELECT count(*) FROM import_parked), (SELECT count(*) FROM pg_index"
            " WHERE indrelid = 'customers'::regclass AND indisvalid),"
            " (SELECT sum(delta) FROM customer_totals)"
        ).fetchone()
    assert left == (0, 3, count)
    # The next one takes the same file from its start.
    own.sync(long)
    own.until("COMPLETED")
    assert customers(dsn) == ROWS


def test_a_paused_one_can_be_cancelled(own, dsn, long):
    started = {}
    with held_midway(dsn, lambda: started.update(own.sync(long))) as let_go:
        job = started["id"]
        ok(own.post(f"/imports/{job}/pause"))
        let_go()
        own.until("PAUSED")
    ok(own.post(f"/imports/{job}/cancel"))
    own.until("CANCELLED", timeout=10)
    assert 0 < customers(dsn) < ROWS


def test_resume_needs_the_file_and_nobody_else(own, dsn, long, files):
    path = files / "moving.csv"
    path.write_bytes(long.read_bytes())
    started = {}
    with held_midway(dsn, lambda: started.update(own.sync(path))) as let_go:
        ok(own.post(f"/imports/{started['id']}/pause"))
        let_go()
        own.until("PAUSED")
    with held(dsn):
        other = own.sync(csv(files / "other.csv", 50, seed=9))
        failed(own.post(f"/imports/{started['id']}/resume"), 409)
    own.until("COMPLETED", job=other["id"])
    path.unlink()
    failed(own.post(f"/imports/{started['id']}/resume"), 400)
    assert status(own, started["id"]) in ("PAUSED", "INTERRUPTED")


def test_rejects_are_paged_and_whole_as_a_file(api, files):
    path = csv(files / "dirty.csv", 500, dirty=0.2, seed=3)
    job = api.sync(path)["id"]
    done = api.until("COMPLETED", job=job)
    page = ok(api.get(f"/imports/{job}/rejects", limit="100"))
    total = page["pagination"]["totalItems"]
    assert total >= int(done["rowsSkipped"]) > 10
    assert len(page["data"]) == min(total, 100)
    for reject in page["data"]:
        assert isinstance(reject["code"], str)
        assert isinstance(reject["message"], str)
        assert str(reject["line"]).isdecimal()
    second = ok(api.get(f"/imports/{job}/rejects", limit="10", page="2"))
    assert second["data"] == page["data"][10:20]
    failed(api.get(f"/imports/{job}/rejects", limit="101"), 400)
    failed(api.get(f"/imports/{job}/rejects", page="0"), 400)
    whole = api.get(f"/imports/{job}/rejects.csv")
    assert whole.status_code == 200
    rows = list(csv_module.reader(whole.text.splitlines(keepends=True)))
    assert len(rows) == total + 1


def test_rejects_are_no_formulas(api, files):
    """A spreadsheet runs a cell that begins with one of =+-@; a file of rejects holds strangers' cells."""
    path = files / "formulas.csv"
    path.write_text('customer id,email\n,"=cmd|calc"\n,"@x"\n,"+1"\n')
    job = api.sync(path)["id"]
    api.until("COMPLETED", job=job)
    whole = api.get(f"/imports/{job}/rejects.csv")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-disposition"].startswith("attachment")


def test_times_of_a_job(api, files):
    job = api.sync(csv(files / "times.csv", 10))["id"]
    api.until("COMPLETED", job=job)
    done = ok(api.get(f"/imports/{job}"))
    for name in ("startedAt", "updatedAt", "completedAt"):
        assert TIME.fullmatch(done[name]), name
    assert done["startedAt"] <= done["completedAt"]
