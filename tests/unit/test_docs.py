"""The documentation as text: lines that an editor and a diff can show, pages that a reader can find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
DECISIONS = [page for page in DOCS if page.parent.name == "decisions"]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md", *DOCS]
ARCHITECTURE = ROOT / "docs/architecture.md"
COLUMNS = 120

LINK = r"\[[^\]]*\]\([^)]*\)|<?https?://\S+"
LINK_ONLY = re.compile(rf"[-*\d. ]*(?:{LINK})[.,:;]?")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that can be wrapped, with their numbers: not tables, code, or a link alone."""
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "    ")) and not LINK_ONLY.fullmatch(line):
            yield number, line


def linked(page: Path) -> Iterator[Path]:
    """The files that a page links to; of a folder, all pages in it."""
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        target = (page.parent / link).resolve()
        yield from target.glob("*.md") if target.is_dir() else [target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_prose_is_longer_than_120_columns(page: Path) -> None:
    long = [
        f"line {number}: {len(line)}"
        for number, line in prose(page.read_text())
        if len(line) > COLUMNS
    ]
    assert not long


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting += linked(page)
    assert not set(PAGES) - reached


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_every_decision_has_its_date(page: Path) -> None:
    title, blank, date, *_ = page.read_text().splitlines()
    assert title.startswith("# ")
    assert not blank
    assert re.fullmatch(r"Decided 20\d\d-[01]\d-[0-3]\d\.", date), date


def test_every_file_that_the_map_names_is_there() -> None:
    files = [
        str(path.relative_to(ROOT))
        for folder in ("python/customer_panel", "rust", "tests", "migrations", "docs", "benchmarks")
        for path in (ROOT / folder).rglob("*.*")
    ]
    files += [path.name for path in ROOT.iterdir()]
    named = re.findall(r"`([\w/.]+\.(?:py|rs|sql|md|toml|pyi|example))`", ARCHITECTURE.read_text())
    assert len(named) > 40
    missing = {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)}
    assert not missing
