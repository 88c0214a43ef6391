"""Configuration files: TOML, every key known, every error with its file and line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from keyark.addresses import join_addresses, parse_addresses
from keyark.errors import ConfigurationError, InvalidInputError
from keyark.files import read_file

MAX_CONFIG_SIZE: Final = 1 << 20
_TABLE: Final = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_TOML_LINE: Final = re.compile(r"at line (\d+)")

Path_ = tuple[str | int, ...]
C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of all sections: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _resolve(path: Path, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base", Path())
    return base / path


ConfigPath = Annotated[Path, AfterValidator(_resolve)]
"""A path; a relative one starts at the folder of the configuration file."""


def _joined(value: object) -> object:
    """A TOML file may have an array instead of commas."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ",".join(value)
    return value


def _checked(text: str, first_port: int) -> str:
    try:
        return join_addresses(parse_addresses(text, first_port=first_port))
    except InvalidInputError as error:
        raise ValueError(error.message) from None


Addresses = Annotated[str, BeforeValidator(_joined), AfterValidator(partial(_checked, first_port=1))]
"""Where a service is called: the first that answers is used."""

Listen = Annotated[str, BeforeValidator(_joined), AfterValidator(partial(_checked, first_port=0))]
"""Where a service listens, on all of them; port 0 takes a free one."""


def misplaced(message: str, *keys: str) -> ValueError:
    """Return the error that a model's validator raises for a key below it, so that it is told with that key's line."""
    return PydanticCustomError("misplaced", "{message}", {"message": message, "keys": keys})


def load_config(path: Path, model: type[C]) -> C:
    """Read a TOML file into its model.

    Raises ConfigurationError with a line "FILE:LINE: key: what is wrong" per error; values are not shown, for they
    could be secret.
    """
    try:
        text = read_file(path, max_size=MAX_CONFIG_SIZE).decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: the file is not UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        raise ConfigurationError(f"{path}:{found.group(1) if found else 1}: {error}.") from None
    except (ValueError, OverflowError, RecursionError):  # numbers, dates and brackets beyond all bounds
        raise ConfigurationError(f"{path}: a number, a date or a nested value is out of bounds.") from None
    try:
        return model.model_validate(values, context={"base": path.resolve().parent, "file": path})
    except ValidationError as error:
        lines = _key_lines(text)
        raise ConfigurationError(
            "\n".join(_describe(path, lines, found) for found in error.errors())
        ) from None


def _describe(path: Path, lines: dict[Path_, int], error: Any) -> str:
    place: Path_ = (*error["loc"], *error.get("ctx", {}).get("keys", ()))
    if error["type"] == "union_tag_invalid":  # it stands at the section, not at the key that names the type
        place = (*place, "type")
    known = _known(lines, place)
    named = place if known == place else (*known, place[-1]) if place and known[-1:] != place[-1:] else known
    name = ".".join(str(part) for part in named) or "the file"
    return f"{path}:{lines.get(known, 1)}: {name}: {_sentence(error)}"


def _sentence(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "this key is unknown; remove it or correct its name"
    if error["type"] == "missing":
        return "this key is missing; add it"
    message: str = error["msg"]
    return message.removeprefix("Value error, ")


def _known(lines: dict[Path_, int], place: Path_) -> Path_:
    """The part of a place that stands in the file; models add parts that do not, such as the type of a rule."""
    known: Path_ = ()
    for part in place:
        if (*known, part) in lines:
            known = (*known, part)
    return known


def _key_lines(text: str) -> dict[Path_, int]:
    """Map the path of every table and key to its line, from 1; values that span lines are stepped over."""
    lines: dict[Path_, int] = {}
    counts: dict[Path_, int] = {}
    table: Path_ = ()
    ahead = 0
    source = text.splitlines()
    for number, line in enumerate(source, 1):
        if number <= ahead:
            continue
        if match := _TABLE.match(line):
            table = _enter(match, counts)
            for end in range(1, len(table) + 1):
                lines.setdefault(table[:end], number)
        elif match := _KEY.match(line):
            place = (*table, *_parts(match.group(1)))
            for end in range(len(table) + 1, len(place) + 1):
                lines.setdefault(place[:end], number)
            ahead = _value_end(source, number)
    return lines


def _enter(match: re.Match[str], counts: dict[Path_, int]) -> Path_:
    """The path of a table header; an array of tables gets the index of its next element."""
    place: Path_ = ()
    parts = _parts(match.group(2))
    for position, part in enumerate(parts):
        place = (*place, part)
        last = position == len(parts) - 1
        if last and match.group(1) == "[[":
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.\s]+', dotted)]


def _value_end(source: Sequence[str], number: int) -> int:
    """The last line of the value that begins on a line: the first up to which the text is whole TOML."""
    for end in range(number, len(source) + 1):
        try:
            tomllib.loads("\n".join(source[number - 1 : end]))
        except (ValueError, OverflowError, RecursionError):
            continue
        return end
    return number
