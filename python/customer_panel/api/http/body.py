"""How the JSON of a request becomes a struct, and how everything wrong with it is named at once."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.openapi.spec import Reference, Schema

from customer_panel.api.http.errors import ApiError, Detail

T = TypeVar("T")


def decoded(payload: bytes, kind: type[T]) -> T:
    """The JSON `payload` as a `kind`; its fields are judged as they will be stored.

    Raises ApiError 400 that names every field at fault.
    """
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ApiError(400, "The request body is not JSON") from None
    if isinstance(found, dict):
        # mypy takes a class for something that cannot be hashed.
        for name, stored in _stored(kind).items():  # type: ignore[arg-type]
            if isinstance(value := found.get(name), str):
                # A blank stays as it was sent: its pattern decides about it.
                found[name] = stored(value) or value
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError:
        raise ApiError(400, "The request body is not valid", _faults(found, kind)) from None


class JsonBody(AbstractDTO[T]):
    """`dto=JsonBody[Kind]` on a handler with a parameter `data: Kind`: see `decoded`.

    The OpenAPI document then says, too, that there are no other fields.
    """

    model_type: type[T]

    def decode_bytes(self, value: bytes) -> T:
        return decoded(value, self.model_type)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """Nothing is generated: msgspec decodes the type as it is."""

    @classmethod
    def create_openapi_schema(
        cls,
        field_definition: Any,
        handler_id: str,  # noqa: ARG003
        schema_creator: Any,
    ) -> Reference | Schema:
        made = schema_creator.for_field_definition(field_definition)
        schema = schema_creator.schema_registry.from_reference(made).schema
        schema.additional_properties = False
        return typing.cast("Reference | Schema", made)


@functools.cache
def _stored(kind: type[Any]) -> dict[str, Callable[[str], str | None]]:
    """For fields with another form in the database what makes it: `stored`, beside the pattern."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    found = {name: _extra(field, "stored") for name, field in fields.items()}
    return {name: stored for name, stored in found.items() if stored is not None}


def _faults(found: Any, kind: type[Any]) -> list[Detail]:
    """Every field at fault, not the first one only: a form shows them all at once."""
    if not isinstance(found, dict):
        return [Detail("body", "is not an object")]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    faults = [Detail(name[:100], "is not a known field") for name in found if name not in fields]
    for name, field in fields.items():
        if name not in found:
            if field.required:
                faults.append(Detail(name, "is required"))
            continue
        try:
            msgspec.convert(found[name], field.type)
        except msgspec.ValidationError as error:
            faults.append(Detail(name, _sentence(str(error), field.type)))
    return faults or [Detail("body", "is not valid")]


def _sentence(message: str, kind: Any) -> str:
    """msgspec's message about a field in the words of the API."""
    if "matching regex" in message:
        # What the type says of a value that its pattern refuses, beside the pattern.
        return _extra(kind, "refused") or "is not valid"
    return (
        message.replace("`", "")
        .replace("Expected str of length", "must have a length")
        .replace("Expected", "must be")
    )


def _extra(kind: Any, name: str) -> Any:
    """What a type, or a part of it, says in the `extra` of its Meta; None if nothing."""
    for part in (*typing.get_args(kind), *getattr(kind, "__metadata__", ())):
        is_meta = isinstance(part, msgspec.Meta)
        found = (part.extra or {}).get(name) if is_meta else _extra(part, name)
        if found is not None:
            return found
    return None
