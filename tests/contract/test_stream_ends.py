"""Streams that come back, that end, that are too many."""

from __future__ import annotations

import re

import pytest

from support.customers import csv
from support.waiting import held, in_parallel, wait_until


@pytest.fixture
def own(serve, dsn, files):
    """A server with a database of its own."""
    return serve(DATABASE_URL=dsn, IMPORT_ROOTS=files, SSE_HEARTBEAT_MS=300)


# -- what was missed ------------------------------------------------------------------------------


def finished(api, files, seed: int) -> str:
    job = str(api.sync(csv(files / f"missed-{seed}.csv", 50, seed=seed))["id"])
    api.until("COMPLETED", job=job)
    return job


def test_a_client_that_comes_back_hears_of_every_end_it_missed(own, files):
    with own.stream() as stream:
        first = stream.message().id
        job = finished(own, files, 1)
        done = stream.until("done")[-1]
        assert done.payload["jobId"] == job
    missed = [finished(own, files, seed) for seed in (2, 3)]
    with own.stream(last_event_id=done.id) as stream:
        assert stream.message().kind == "snapshot"
        seen = stream.quiet(0.25)
        assert [m.payload["jobId"] for m in seen if m.kind == "done"] == missed
        assert len({m.id for m in seen}) == len(seen)
    with own.stream(last_event_id=first) as stream:
        ends = [m.payload["jobId"] for m in stream.quiet(0.5) if m.kind == "done"]
        assert ends == [job, *missed]
    # Who saw everything, and who comes for the first time, hears of no old end.
    with own.stream() as stream:
        last = stream.message().id
        assert "done" not in [m.kind for m in stream.quiet(0.25)]
    with own.stream(last_event_id=last) as stream:
        assert "done" not in [m.kind for m in stream.quiet(0.5)]


def test_it_hears_of_them_after_a_restart_too(own, files):
    with own.stream() as stream:
        last = stream.message().id
    own.kill()
    own.start().wait_ready()
    job = finished(own, files, 5)
    own.kill()
    own.start().wait_ready()
    with own.stream(last_event_id=last) as stream:
        assert [m.payload["jobId"] for m in stream.quiet(0.5) if m.kind == "done"] == [job]


@pytest.mark.parametrize(
    "last", ["", "x", "-1", "0", "99999999999999999999-1", "1-1-1", "1-x", "é", "9" * 5000, "'; --"]
)
def test_an_odd_last_event_id_is_no_reason_to_fail(own, last):
    headers = {"last-event-id": last}
    with own.stream(**headers) as stream:
        assert stream.status in (200, 400)
        if stream.status == 200:
            assert stream.message().kind == "snapshot"


# -- the end of a stream --------------------------------------------------------------------------


def test_ends_with_the_server(own, files, dsn):
    path = csv(files / "stopped.csv", 1000)
    with own.stream() as idle, own.stream() as busy:
        idle.message()
        with held(dsn):
            own.sync(path)
            busy.until("progress", "snapshot")
            assert own.terminate() < 5
        for stream in (idle, busy):
            stream.rest()
            assert stream.is_ended


def test_gone_clients_leave_nothing_behind(own):
    """Streams that were closed by their clients are not counted any more."""

    def opened() -> float:
        text = own.root.get("/metrics").text
        found = re.search(r"^customer_panel_streams ([0-9.]+)$", text, re.M)
        assert found, text
        return float(found[1])

    assert opened() == 0
    streams = in_parallel(20, lambda _: own.stream())
    assert [stream.message().kind for stream in streams] == ["snapshot"] * 20
    assert opened() == 20
    for stream in streams:
        stream.close()
    wait_until("no stream is counted", lambda: opened() == 0, 30, opened)


def test_more_than_the_cap_are_refused(serve, dsn):
    api = serve(DATABASE_URL=dsn, SSE_MAX_STREAMS=3)
    streams = [api.stream() for _ in range(3)]
    for stream in streams:
        assert stream.message().kind == "snapshot"
    with api.stream() as refused:
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert b'"UNAVAILABLE"' in refused.body()
    streams.pop().close()

    def is_let_in() -> bool:
        with api.stream() as stream:
            return stream.status == 200

    wait_until("a stream is let in for the one that was closed", is_let_in, 30)
    for stream in streams:
        stream.close()
