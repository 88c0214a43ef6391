"""The reference of rule types and attributes in Markdown, made from their definitions.

``python -m keyark.policy.reference docs/policy.md`` writes it between the marks of that file, and a test holds the file
against it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from keyark.policy.requests import ATTRIBUTES
from keyark.policy.rules.catalogue import RULE_TYPES, type_name
from keyark.policy.rules.enrollment import STAGES, RuleSettings
from keyark.policy.rules.library import LIBRARY

_MARKED: Final = re.compile(r"(<!-- (\w+): made from the code -->\n).*?(<!-- end -->)", re.DOTALL)
_COMMON: Final = {"type", *RuleSettings.model_fields}


def update(document: str) -> str:
    """Return the document with every marked part made anew."""
    parts = {"attributes": _attributes, "rules": _rules, "library": _library}
    return _MARKED.sub(lambda found: f"{found[1]}{_table(parts[found[2]]())}{found[3]}", document)


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    head = next(rows)
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _attributes() -> Iterator[tuple[str, ...]]:
    yield "attribute", "type", "stages", "what it says"
    for a in ATTRIBUTES:
        yield f"`{a.name}`", a.cel_type, _stages(a.stages), a.text


def _rules() -> Iterator[tuple[str, ...]]:
    yield "type", "stages", "parameters and their defaults", "what it does"
    for kind in sorted(RULE_TYPES, key=type_name):
        yield (
            f"`{type_name(kind)}`",
            _stages(kind.stages),
            _parameters(kind),
            (kind.__doc__ or "").partition("\n")[0],
        )


def _library() -> Iterator[tuple[str, ...]]:
    yield "type", "stages", "parameters and their defaults", "rejects"
    for name, kind in sorted(LIBRARY.items()):
        yield f"`{name}`", _stages(kind.stages), _parameters(kind), kind.template.text


def _stages(stages: frozenset[str]) -> str:
    return "all" if stages == frozenset(STAGES) else ", ".join(stage for stage in STAGES if stage in stages)


def _parameters(kind: type[RuleSettings]) -> str:
    fields = {name: field for name, field in kind.model_fields.items() if name not in _COMMON}
    return "; ".join(
        f"`{name}`" if field.is_required() else f"`{name}` = `{field.default!r}`"
        for name, field in fields.items()
    )


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text()))
