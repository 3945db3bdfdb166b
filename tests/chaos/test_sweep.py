"""Every call of the driver in an import is disturbed in every way; then the import is finished.

`make test` takes every tenth, `make chaos-sweep` all, `make chaos-sweep SCENE=loaded KIND=hang K=7` one.
"""

from __future__ import annotations

import os

import pytest

from support.sweep import KINDS, SCENES

PARTS = 10
IS_WHOLE = "CHAOS_SWEEP" in os.environ
# Set for `make chaos-sweep`, which may leave them empty.
SCENE, KIND, K = (os.environ.get(f"SWEEP_{name}") for name in ("SCENE", "KIND", "K"))


def cases() -> list[tuple[str, str, int]]:
    """Scene, kind and part: the calls whose numbers are `part` modulo PARTS."""
    return [
        (scene, kind, part)
        for scene in SCENES
        for number, kind in enumerate(KINDS)
        for part in range(PARTS)
        if (IS_WHOLE or part == number * 3 % PARTS)
        and scene == (SCENE or scene)
        and kind == (KIND or kind)
        and part == (int(K) if K else part) % PARTS
    ]


@pytest.mark.parametrize(("scene", "kind", "part"), cases())
def test_a_disturbed_call_changes_nothing(sweeps, scene, kind, part):
    sweep = sweeps[scene]
    count = len(sweep.calls)
    numbers = [int(K)] if K else sweep.numbers(part, PARTS)
    failures = [sweep.failure(k, kind) for k in numbers]
    found = [failure for failure in failures if failure]
    assert not found, f"{len(found)} of {len(numbers)} (calls: {count})\n" + "\n".join(found)
