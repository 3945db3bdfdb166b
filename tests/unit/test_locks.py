"""The locks: complete, to the hash, and without an address of anybody's registry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def locked() -> dict[str, str]:
    """The version of each package of requirements.lock."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK, re.M))


def test_every_package_is_pinned_and_has_its_hashes() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) == len(locked())
    for entry in entries:
        lines = [line.rstrip(" \\") for line in entry.splitlines()]
        hashes = [line for line in lines[1:] if not line.lstrip().startswith("#")]
        assert hashes, entry
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in hashes), entry


def test_the_locks_name_no_address() -> None:
    assert not re.search(r"://|^\s*-(?!-hash)|@|\.whl|\bindex\b", LOCK, re.M)
    for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]:
        if "source" in package:
            assert package["source"] == "registry+https://github.com/rust-lang/crates.io-index"
            assert package["checksum"]
        else:
            assert package["name"].startswith("customer-panel-")


def test_the_lock_fits_what_is_asked_for() -> None:
    """It is renewed by `make lock`."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = asked["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["api"]
    versions = locked()
    for line in lines + asked["dependency-groups"]["dev"]:
        one = Requirement(line)
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), line


def test_the_image_takes_the_server_from_the_lock() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "customer-panel[api] @ file://" in text
    assert "cp requirements.lock /wheels/constraints.txt" in text
    assert re.search(
        r"^RUN pip install .*--require-hashes.*--constraint /wheels/constraints", text, re.M
    )
