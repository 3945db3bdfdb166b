"""The table of states is what the statements do: every event tried from every state."""

from __future__ import annotations

import contextlib
from typing import get_args

import pytest

from customer_panel._native import generate
from customer_panel.errors import ClaimLost
from customer_panel.imports import import_customers
from customer_panel.imports.job import ledger
from customer_panel.imports.model import Claim
from customer_panel.states import STATUSES, Event, after

ENDS = {"complete": "COMPLETED", "fail": "FAILED", "stop": "PAUSED", "lose": "INTERRUPTED"}


@pytest.fixture
def job(dsn, tmp_path):
    """The number of an import."""
    path = tmp_path / "customers.csv"
    generate(str(path), 10)
    return import_customers(path, dsn).job_id


@pytest.mark.parametrize("event", get_args(Event))
@pytest.mark.parametrize("status", STATUSES)
def test_every_event_leads_from_every_state_where_the_table_says(database, job, status, event):
    import_id = job
    database.execute("UPDATE imports SET status = %s WHERE id = %s", (status, import_id))
    (epoch, source_id) = database.execute(
        "SELECT epoch, source_id FROM imports WHERE id = %s", (import_id,)
    ).fetchone()
    database.commit()
    with contextlib.suppress(ClaimLost):
        if event == "claim":
            ledger.claim(database, import_id)
        elif event == "cancel":
            # Claimed for it, whatever it was.
            ledger.end(database, ledger.claim(database, import_id), "CANCELLED")
        else:
            ledger.end(database, Claim(import_id, epoch, source_id, 0), ENDS[event])
    (reached,) = database.execute(
        "SELECT status FROM imports WHERE id = %s", (import_id,)
    ).fetchone()
    assert reached == (after(status, event) or status)
