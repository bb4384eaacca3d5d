"""Request bodies: JSON into the configuration's own types, or which field is wrong and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from engines.errors import UsageError
from engines.settings import decode

T = TypeVar("T")


class BodyError(Exception):
    """A body that is wrong, with the field."""

    def __init__(self, loc: Sequence[str | int], sentence: str) -> None:
        super().__init__(sentence)
        self.loc = ["body", *loc]
        self.sentence = sentence


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty body is an empty one.

    Raises:
        BodyError: not JSON, or not an object.
    """
    if not body:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BodyError([], f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BodyError([], "the body must be a JSON object")
    return value


def body_as(values: Mapping[str, Any], type_: type[T]) -> T:
    """The values as a settings type.

    Raises:
        BodyError: a field is missing, unknown or of the wrong kind.
    """
    try:
        msgspec.convert(values, type_)
    except msgspec.ValidationError as error:
        loc = _field(str(error))
        raise BodyError(loc, _sentence(values, type_, str(error))) from None
    return decode(values, type_, "the body")


def _sentence(values: Mapping[str, Any], type_: Any, otherwise: str) -> str:
    try:
        decode(values, type_, "the body")
    except UsageError as error:
        return str(error).removeprefix("the body: ")
    except (AssertionError, LookupError, TypeError):
        pass  # names that cannot be told from a path, such as "a.b"
    return otherwise


def _field(message: str) -> list[str | int]:
    """Where msgspec found the fault, as a path of names and places."""
    problem, _, path = message.rpartition(" - at `")
    if not problem:
        problem, path = message, ""
    steps: list[str | int] = [name or int(place) for name, place in re.findall(r"\.([^.\[`]+)|\[(\d+)\]", path)]
    missing = re.match(r"Object (?:contains unknown|missing required) field `(.*)`", problem)
    return [*steps, missing[1]] if missing else steps
