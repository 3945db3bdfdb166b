"""The order of the package: no files that import each other in a circle, no long files, no crowded
folders, and each SQL statement in the room of its Python file.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import customer_panel
from customer_panel.sql import FOLDER, STATES, statements

PACKAGE = Path(customer_panel.__file__).parent
FILES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
MOST_LINES = 350
MOST_FILES = 13  # in a folder, without those of its subfolders

# Files that may be longer, each for a reason.
LONG = {
    "customer_panel/errors.py": "a list: every exception of the package, with its hint",
}

Graph = dict[str, set[str]]


def module_of(file: Path) -> str:
    """The name by which `file`, relative to the folder of the package, is imported."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module and of its functions, but none for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for branch in node.orelse:
                yield from imports_of(ast.Module([branch], []))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from imports_of(node)


def imported_by(module: str, *, is_package: bool, source: str, known: set[str]) -> set[str]:
    """The modules of `known` that the text `source` of `module` imports.

    `import package` and `from package import name` count as an import of its `__init__`, but
    `from package import module` as one of that module.
    """
    found: set[str] = set()
    for node in imports_of(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
            continue
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package]
            base = ".".join([*above, *filter(None, [base])])
        for name in node.names:
            full = f"{base}.{name.name}"
            found.add(full if full in known else base)
    return (found & known) - {module}


def graph_of(sources: dict[Path, str]) -> Graph:
    modules = {module_of(file): (file, source) for file, source in sources.items()}
    return {
        module: imported_by(
            module, is_package=file.name == "__init__.py", source=source, known=set(modules)
        )
        for module, (file, source) in modules.items()
    }


def circle_in(graph: Graph) -> list[str]:
    """A circle of `graph`, as the path from a module back to it; empty if there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for imported in sorted(graph[module]):
            if circle := visit(imported):
                return circle
        done.add(path.pop())
        return []

    for module in sorted(graph):
        if circle := visit(module):
            return circle
    return []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = graph_of({file: (PACKAGE.parent / file).read_text() for file in FILES})
    assert any(graph.values()), "no import was found: the check itself is broken"
    circle = circle_in(graph)
    assert not circle, "these files import each other: " + " -> ".join(circle)


def test_a_circle_is_found_wherever_the_import_stands() -> None:
    sources = {
        Path("p/__init__.py"): "",
        Path("p/a.py"): "from p import b",
        Path("p/b.py"): "def work():\n    from . import c",
        Path("p/c/__init__.py"): "try:\n    import p.c.d\nfinally:\n    pass",
        Path("p/c/d.py"): "from ..a import work",
    }
    assert circle_in(graph_of(sources)) == ["p.a", "p.b", "p.c", "p.c.d", "p.a"]
    harmless = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import work"
    assert circle_in(graph_of(sources | {Path("p/c/d.py"): harmless})) == []


def test_only_written_exceptions_are_long_files() -> None:
    lines = {str(file): len((PACKAGE.parent / file).read_text().splitlines()) for file in FILES}
    too_long = {file: count for file, count in lines.items() if count > MOST_LINES}
    assert too_long.keys() == LONG.keys(), f"longer than {MOST_LINES} lines: {too_long}"


def test_no_folder_is_crowded() -> None:
    files = Counter(str(file.parent) for file in FILES)
    too_full = {folder: count for folder, count in files.items() if count > MOST_FILES}
    assert not too_full, f"more than {MOST_FILES} files: {too_full}"


def strings_of(file: Path) -> set[str]:
    """Every string of a Python file that stands alone as an argument or a value."""
    tree = ast.parse(file.read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def named_by_calls(file: Path) -> set[str]:
    """The names that a file hands to what runs a statement: `statement("x")`, `query.rows(conn, "x")`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        if name in RUNNERS:
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return found


RUNNERS = {"statement", "rows", "first", "only", "copy_in", "rows_async", "first_async", "fenced"}


def test_a_statement_stands_in_the_sql_file_of_the_python_file_that_names_it() -> None:
    python = {file.stem: PACKAGE.parent / file for file in FILES if file.parts[1] != "sql"}
    texts = {path: path.read_text() for path in FOLDER.rglob("*.sql")}
    fragments = set(re.findall(r"<(\w+)>", "".join(texts.values())))
    homes = {
        name: path
        for path, text in texts.items()
        for name in re.findall(r"^-- (\w+) --$", text, re.M)
    }
    assert homes.keys() | STATES.keys() == statements().keys()
    for name, path in homes.items():
        assert path.stem in python, f"{path.name} belongs to no Python file"
        if name not in fragments:
            assert name in strings_of(python[path.stem]), f"{name} is not named in {path.stem}.py"
    for file in FILES:
        for name in named_by_calls(PACKAGE.parent / file) & homes.keys():
            assert homes[name].stem == file.stem, f"{file} names {name} of {homes[name].name}"
