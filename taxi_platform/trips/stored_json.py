"""Small JSON files that a later run reads, maybe one of another version of the platform: how all of them are stored.

Each carries its format's number and a digest of its content, so that a cut or edited file is noticed. Files of earlier
versions carry neither. Fields that this version does not know are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from taxi_platform.trips.errors import DamagedFile, NewerFormat

FORMAT_VERSION = 1
"""Of every stored file today. A reader that does not know a file's number cannot know what its fields mean."""

NUMBER, DIGEST = "format_version", "digest"
Record = TypeVar("Record")


def dump(content: Mapping[str, Any]) -> str:
    """The text to store."""
    numbered = {NUMBER: FORMAT_VERSION, **content}
    return json.dumps({**numbered, DIGEST: _digest(numbered)}, indent=1)


def load(text: bytes | str, name: str, what: str, remedy: str) -> dict[str, Any]:
    """The fields of a stored text.

    Raises `DamagedFile` with `remedy` if it was cut or edited, and `NewerFormat`. `name` says which file it is, `what`
    what it should be.
    """
    damaged = f"{name} is not a {what}: "
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{damaged}{_short(error)}.", remedy) from error
    if not isinstance(content, dict):
        raise DamagedFile(f"{damaged}it holds {_short(content)}.", remedy)
    digest = content.pop(DIGEST, None)
    if digest is not None and digest != _digest(content):
        on_purpose = f"If it was edited on purpose, delete its field {DIGEST!r}."
        raise DamagedFile(f"{damaged}it was altered since it was written.", f"{remedy} {on_purpose}")
    check_format(content.pop(NUMBER, FORMAT_VERSION), name, what, remedy)
    return content


def check_format(number: object, name: str, what: str, remedy: str, newest: int = FORMAT_VERSION) -> None:
    """Raise `NewerFormat` for a number above `newest`, `DamagedFile` for what is no number."""
    if type(number) is not int or number < 0:
        raise DamagedFile(f"{name} is not a {what}: its {NUMBER} is {_short(number)}.", remedy)
    if number > newest:
        raise NewerFormat(f"{name} was written by a newer version of taxi_platform.", "Upgrade taxi_platform.")


def record(kind: type[Record], content: object) -> Record:
    """The dataclass with these fields; raises `ValueError` for one that is missing or has another type."""
    if not isinstance(content, dict):
        raise ValueError(f"{_short(content)} is no {kind.__name__}")
    hints = _hints(kind)  # type: ignore[arg-type]
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in content:
            values[field.name] = _typed(content[field.name], hints[field.name], field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{field.name} is missing")
    return kind(**values)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; Python evaluates their annotations anew each time."""
    return get_type_hints(kind)


def _typed(value: Any, hint: Any, name: str) -> Any:
    """The value as this type; JSON has no tuples, so lists become tuples again."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        matching = next((each for each in arguments if each is type(value)), arguments[0])
        return _typed(value, matching, name)
    if origin is tuple and type(value) is list:
        return tuple(_typed(each, arguments[0], name) for each in value)
    if origin is dict and type(value) is dict:
        return {key: _typed(each, arguments[1], name) for key, each in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return record(hint, value)
    # A lone surrogate is valid in JSON, and nowhere else.
    if origin or type(value) is not hint or (hint is str and not _encodable(value)):
        raise ValueError(f"{name} is {_short(value)}")
    return value


def _encodable(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text and "\0" not in text


def _digest(content: Mapping[str, Any]) -> str:
    """The sha256 of the content, however it is laid out."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: object) -> str:
    text = ascii(str(value))
    return text if len(text) < 80 else f"{text[:80]} …"
