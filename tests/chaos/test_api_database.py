"""PostgreSQL goes away and comes back under a server that nobody restarts."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import psycopg
import pytest

from customer_panel.db import embedded
from customer_panel.db.migrate import migrate
from support.api import Api, serving
from support.customers import customer_body
from support.envelope import failed, ok
from support.kill_runner import RUNS, Scene, scenes
from support.waiting import wait_until

SEED = 77
BACK_WITHIN_S = 2.0 if RUNS else 6.0  # `make test` runs two of these at once
DOWN_S = 1.5


@pytest.fixture(scope="module")
def stoppable_scenes(stoppable, tmp_path_factory) -> dict[str, Scene]:
    stoppable.execute("CREATE DATABASE template_stoppable")
    migrate(stoppable.dsn("template_stoppable"))
    return scenes(stoppable, "template_stoppable", tmp_path_factory.mktemp("stoppable"), 150_000)


def stop_immediately(home: Path) -> None:
    """As `pg_ctl stop -m immediate`: no checkpoint, no farewell. Returns when nothing answers."""
    found = embedded.status(home)
    assert found.pid is not None
    os.kill(found.pid, signal.SIGQUIT)
    wait_until("PostgreSQL is gone", lambda: embedded.status(home).pid is None, 20)


class Callers:
    """Threads that ask and write all the time; every answer is kept."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.answers: list[tuple[float, httpx.Response]] = []
        self.broken: list[str] = []
        self._stop = threading.Event()
        self._mine = "/customers/0"  # who is changed: one that the callers have made
        calls = [
            lambda http: http.get("/customers"),
            lambda http: http.get("/customers/1"),
            self._create,
            lambda http: http.patch(self._mine, json={"city": "x"}),
            lambda http: http.get("/customers/progress"),
            lambda http: http.get("/imports"),
        ]
        self._threads = [threading.Thread(target=self._call, args=[call]) for call in calls]

    def _create(self, http: httpx.Client) -> httpx.Response:
        answer = http.post("/customers", json=customer_body())
        if answer.status_code == 201:
            self._mine = f"/customers/{answer.json()['data']['id']}"
        return answer

    def _call(self, call) -> None:
        with httpx.Client(
            base_url=self.api.http.base_url, headers=self.api.http.headers, timeout=20
        ) as http:
            while not self._stop.wait(0.01):
                began = time.monotonic()
                try:
                    self.answers.append((began, call(http)))
                except httpx.TransportError as error:
                    asked = f"{error.request.method} {error.request.url.path}"
                    after = f"after {time.monotonic() - began:.1f} s"
                    self.broken.append(f"{asked}, {after}: {error!r}")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Each was answered: as ever, or with 503 and when to come again."""
        assert not self.broken, f"{self.broken}\n{self.api.output}"
        refused = [answer for _, answer in self.answers if answer.status_code == 503]
        assert refused
        for answer in refused:
            failed(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1
        others = {answer.status_code for _, answer in self.answers} - {503}
        # Some ask for a customer that is not there yet.
        assert others <= {200, 201, 404}, others


@pytest.mark.parametrize("number", range(max(3, RUNS // 20)))
def test_stopped_during_an_import_and_requests(stoppable, stoppable_scenes, tmp_path, number):
    draw = random.Random(SEED + number)
    scene = stoppable_scenes[["first", "again"][number % 2]]
    home = stoppable.server.home
    settings = {"IMPORT_ROOTS": scene.path.parent, "IMPORT_BATCH_SIZE": 1000}
    with (
        stoppable.copy(scene.before) as dsn,
        serving(tmp_path, DATABASE_URL=dsn, **settings) as api,
    ):
        pid = api.process.pid
        with Callers(api) as callers, api.stream() as stream:
            stream.message()
            job = api.sync(scene.path)["id"]
            stops, back = [], []
            for _ in range(2):
                time.sleep(draw.uniform(0.05, 0.5))  # any moment of the import
                stop_immediately(home)
                began = time.monotonic()
                wait_until("requests are refused", lambda: answers(api, 503), 5)
                wait_until("not ready", lambda: is_ready(api, 503), 5)
                assert api.root.get("/health/live").status_code == 200
                time.sleep(DOWN_S)  # requests are refused all the while
                stops.append(round(time.monotonic() - began, 1))
                embedded.up(home)
                returned = time.monotonic()
                wait_until("requests are answered", lambda: answers(api), 20)
                wait_until("the import goes on", lambda: runs_or_is_through(dsn), 20)
                back.append(round(time.monotonic() - returned, 2))
            print(f"seed {SEED + number}: down {stops} s, back after {back} s")
            assert max(back) < BACK_WITHIN_S
            api.until("COMPLETED", job=job)
            assert stream.until("done", "error")[-1].payload["jobId"] == job
            wait_until("ready", lambda: is_ready(api), 5)
        callers.check()
        assert (api.process.poll(), api.process.pid) == (None, pid)
        forget_callers(dsn)
        scene.check(dsn)


def forget_callers(dsn: str) -> None:
    """Takes those out whom the callers made."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("DELETE FROM customers WHERE email LIKE 'someone%@example.com'")
        conn.execute(
            "WITH gone AS (DELETE FROM customer_totals) INSERT INTO customer_totals"
            " SELECT id >> 13, count(*) FROM customers GROUP BY 1"
        )


def answers(api: Api, status: int = 200) -> bool:
    return api.get("/customers").status_code == status


def is_ready(api: Api, status: int = 200) -> bool:
    return api.root.get("/health/ready").status_code == status


def processed(api: Api) -> int:
    return int(api.progress()["rowsProcessed"])


def runs_or_is_through(dsn: str) -> bool:
    """A runner is connected to a running job, or it is over."""
    with psycopg.connect(dsn) as conn:
        (status,) = conn.execute("SELECT status FROM imports ORDER BY id DESC LIMIT 1").fetchone()
        (sessions,) = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'customer-panel:import%'"
        ).fetchone()
    return status == "COMPLETED" or (status == "RUNNING" and sessions > 0)


def test_a_server_that_starts_before_its_database(stoppable, stoppable_scenes, tmp_path):
    """It answers 503 until then, and finds what was left running."""
    scene = stoppable_scenes["first"]
    home = stoppable.server.home
    with stoppable.copy(scene.before) as dsn:
        settings = {"IMPORT_ROOTS": scene.path.parent, "IMPORT_BATCH_SIZE": 1000}
        api = Api(tmp_path, DATABASE_URL=dsn, **settings).start().wait_ready()
        job = api.sync(scene.path)["id"]
        wait_until("the first rows are in", lambda: processed(api) > 0, 20)
        api.kill()
        stop_immediately(home)
        try:
            api.start().wait_ready("/health/live")
            failed(api.get("/customers"), 503)
            failed(api.get("/customers/progress"), 503)
            failed(api.post("/customers/sync", {"filePath": str(scene.path)}), 503)
            assert api.root.get("/health/ready").status_code == 503
            with api.stream() as stream:
                assert stream.status in (200, 503)
        finally:
            embedded.up(home)
        returned = time.monotonic()
        wait_until("the import goes on", lambda: runs_or_is_through(dsn), 20)
        assert time.monotonic() - returned < BACK_WITHIN_S
        api.until("COMPLETED", job=job)
        api.close()
        scene.check(dsn)


def test_sigterm_while_the_database_is_away(stoppable, stoppable_scenes, tmp_path):
    scene = stoppable_scenes["first"]
    home = stoppable.server.home
    with stoppable.copy(scene.before) as dsn:
        settings = {"IMPORT_ROOTS": scene.path.parent, "IMPORT_BATCH_SIZE": 1000}
        with serving(tmp_path, DATABASE_URL=dsn, **settings) as api:
            api.sync(scene.path)
            with api.stream() as stream:
                stream.message()
                stop_immediately(home)
                try:
                    wait_until("not ready", lambda: is_ready(api, 503), 5)
                    assert api.terminate() < 5
                finally:
                    embedded.up(home)


def test_its_own_embedded_database_is_started_again(home, stoppable_scenes, tmp_path):
    """No DATABASE_URL: the server is the one who has to bring it back."""
    scene = stoppable_scenes["first"]
    settings = {"IMPORT_ROOTS": scene.path.parent, "IMPORT_BATCH_SIZE": 1000}
    with serving(tmp_path, CP_HOME=home, **settings) as api:
        job = api.sync(scene.path)["id"]
        for number in (signal.SIGQUIT, signal.SIGKILL):
            before = processed(api)
            wait_until("more rows are in", lambda n=before: processed(api) > n, 20)
            old = embedded.status(home).pid
            os.kill(old or 0, number)
            # Requests may not even notice: they wait a little for a connection.
            wait_until("a new server", lambda n=old: embedded.status(home).pid not in (None, n), 20)
            wait_until("requests are answered", lambda: answers(api), 20)
        done = api.until("COMPLETED", job=job)
        assert int(done["rowsInserted"]) == scene.counts[1]
        ok(api.post("/customers", customer_body()), 201)
