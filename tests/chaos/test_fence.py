"""Who lost the claim writes nothing any more, in whatever phase it is told."""

from __future__ import annotations

import psycopg
import pytest

from customer_panel.errors import ClaimLost
from customer_panel.imports.engine import finish, indexes
from customer_panel.imports.engine.apply import Writer
from customer_panel.sql import statement
from support.compare import digest, run


def taken_over(dsn: str) -> None:
    """Another runner claims the job: what `ledger.claim` does, from another session."""
    with psycopg.connect(dsn) as conn:
        (job,) = conn.execute("SELECT id FROM imports WHERE status = 'RUNNING'").fetchone()
        asked = {"import_id": job, "is_first": True, "forgets_pause": False}
        (epoch, _) = conn.execute(statement("claim_import"), asked).fetchone()
        conn.execute(statement("claim_lanes"), {"import_id": job, "epoch": epoch})


def left(dsn: str) -> tuple:
    """All that an import writes."""
    with psycopg.connect(dsn) as conn:
        lanes = conn.execute("SELECT * FROM import_lanes ORDER BY lane").fetchall()
        parked = conn.execute("SELECT count(*) FROM import_parked").fetchone()
        rejects = conn.execute("SELECT count(*) FROM import_rejects").fetchone()
        job = conn.execute("SELECT status, phase, scanned_to, error FROM imports").fetchall()
        history = conn.execute("SELECT count(*) FROM customer_history").fetchone()
        indexes = conn.execute(
            "SELECT indexrelid::regclass::text FROM pg_index"
            " WHERE indrelid = 'customers'::regclass ORDER BY 1"
        ).fetchall()
    return digest(dsn), lanes, parked, rejects, job, history, indexes


# The function that is entered right after the claim went, and at which of its calls.
MOMENTS = {
    "first batch": (Writer, "apply", 1),
    "later batch": (Writer, "apply", 4),
    "between copy and checkpoint": (Writer, "_checkpoint", 3),
    "index build": (indexes, "_build_together", 1),
    "parked rows": (finish, "merge_parked", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_who_lost_the_claim_writes_nothing_more(small, databases, monkeypatch, moment):
    scene = small["first"]
    owner, name, number = MOMENTS[moment]
    original, calls, seen = getattr(owner, name), [], []
    with databases.copy(scene.before) as dsn:

        def called(*args):
            calls.append(1)
            if len(calls) == number:
                taken_over(dsn)
                seen.append(left(dsn))
            return original(*args)

        monkeypatch.setattr(owner, name, called)
        with pytest.raises(ClaimLost):
            run(scene.path, dsn, lanes=1, batch_rows=300)
        monkeypatch.undo()
        assert left(dsn) == seen[0]
        assert run(scene.path, dsn).is_resumed
        scene.check(dsn)
