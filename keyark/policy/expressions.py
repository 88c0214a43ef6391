"""Conditions in CEL, the Common Expression Language (cel.dev), checked when they are loaded.

A condition names attributes of its stage and functions of CEL's standard library, and has a truth value::

    email_domain == "example.org" && signing_key_algorithm in ["ec", "ed25519"]
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Final

from keyark.errors import KeyarkError, Kind
from keyark.policy.cel_library import cel
from keyark.policy.patterns import MATCHES
from keyark.policy.requests import attributes_of, sample_of

MAX_SOURCE: Final = 4096
FUNCTIONS: Final = frozenset(
    {
        "contains", "startsWith", "endsWith", "matches", "size", "int", "uint", "double", "string", "bool",
        "timestamp", "duration", "getFullYear", "getMonth", "getDate", "getDayOfWeek", "getHours", "getMinutes",
    }
)  # fmt: skip
"""Of CEL's standard library, besides operators and the macros all, exists, exists_one, filter, map and has."""

_BINDING: Final = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*([A-Za-z_]\w*)\s*,")
_TEXT: Final = re.compile(
    r"""//[^\n]*                                     # a comment
    | [rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')          # raw: no escapes
    | "{3}(?:\\.|[^\\])*?"{3} | '{3}(?:\\.|[^\\])*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
    """,
    re.DOTALL | re.VERBOSE,
)
_MATCHES: Final = re.compile(r"\.\s*matches(?=\s*\()")
_DATA_ERRORS: Final = (KeyError, IndexError, ZeroDivisionError, OverflowError)


class ExpressionError(KeyarkError):
    """The condition does not parse, names what its stage does not have, or has no truth value."""

    reason = "EXPRESSION"
    kind = Kind.INVALID


@dataclass(frozen=True)
class Condition:
    """A condition that was compiled and checked for a stage."""

    source: str
    _program: cel.Program = field(repr=False)

    @classmethod
    def compile(cls, source: str, stage: str) -> Condition:
        """Compile a condition of at most 4,096 characters and try it on a sample request.

        Raises ExpressionError, which says what is wrong and what there is instead.
        """
        if len(source) > MAX_SOURCE:
            raise ExpressionError(f"a condition has at most {MAX_SOURCE} characters")
        try:
            program = cel.compile(source)
        except ValueError as error:
            raise ExpressionError(f"this is not a CEL expression: {_first_line(error)}") from None
        _check_names(program, source, stage)
        condition = cls(source, cel.compile(_with_kept_patterns(source)))
        try:
            condition.holds(sample_of(stage).context)
        except _DATA_ERRORS:
            pass  # it depends on the request, and rejects where it fails
        except (TypeError, ValueError, RuntimeError) as error:
            raise ExpressionError(f"it fails on a sample request: {_first_line(error)}") from None
        return condition

    def holds(self, context: cel.Context) -> bool:
        """Return the condition's truth value; raises ExpressionError for another value, and whatever CEL raises."""
        value = self._program.execute(context)
        if not isinstance(value, bool):
            raise ExpressionError("the condition is neither true nor false; write a comparison")
        return value


def _check_names(program: cel.Program, source: str, stage: str) -> None:
    known = {attribute.name for attribute in attributes_of(stage)}
    unknown = sorted(set(program.variables()) - known - _bound_names(source))
    if unknown:
        raise ExpressionError(
            f"the stage {stage!r} has no attribute {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    functions = sorted(name for name in set(program.functions()) - FUNCTIONS if name[0].isalpha())
    if functions:
        raise ExpressionError(
            f"there is no function {', '.join(functions)}; use {', '.join(sorted(FUNCTIONS))}"
        )


def _bound_names(source: str) -> set[str]:
    """Return the names that macros bind, ``x`` in ``exists(x, …)``, and that stand nowhere outside of those macros."""
    code = _blank_texts(source)
    scopes: dict[str, list[range]] = {}
    for binding in _BINDING.finditer(code):
        scopes.setdefault(binding[1], []).append(range(binding.start(1), _closing(code, binding.end())))
    return {
        name
        for name, inside in scopes.items()
        if all(
            any(use.start() in scope for scope in inside) for use in re.finditer(rf"(?<![\w.]){name}\b", code)
        )
    }


def _with_kept_patterns(source: str) -> str:
    """Let ``matches`` be ours, for CEL's own compiles the pattern whenever it is asked, which takes up to 400 us."""
    code = _blank_texts(source)
    places = [found.span() for found in _MATCHES.finditer(code)]
    for start, end in reversed(places):
        source = f"{source[:start]}.{MATCHES}{source[end:]}"
    return source


def _blank_texts(source: str) -> str:
    return _TEXT.sub(lambda found: " " * len(found[0]), source)


def _closing(code: str, start: int) -> int:
    """Return where the parenthesis ends that is open at ``start``; the code compiles, so there is one."""
    depth = 1
    for place in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[place], 0)
        if not depth:
            return place
    return len(code)


def literal(value: bool | int | float | str | list[str]) -> str:  # noqa: FBT001 — a value, no switch
    """Return a value as CEL writes it."""
    return json.dumps(value, ensure_ascii=False)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
