"""What the document cannot say: which files there are to import."""

from __future__ import annotations

import os

import schemathesis

FILES = os.environ["FUZZ_FILES"].split(os.pathsep)


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: object) -> object:
    """A path that is valid is one of a file that is there, lest every import is refused for that."""
    if isinstance(body, dict) and isinstance(body.get("filePath"), str) and body["filePath"]:
        number = sum(map(ord, body["filePath"])) % len(FILES)
        if len(body["filePath"]) <= 2048 and "\0" not in body["filePath"]:
            body["filePath"] = FILES[number]
    return body
