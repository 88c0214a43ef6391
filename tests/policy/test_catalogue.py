"""A rule type that somebody adds is in the catalogue, judges requests, and has a test."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from keyark.policy.rules.catalogue import RULE_TYPES, type_name
from keyark.policy.rules.enrollment import RuleSettings
from keyark.policy.rules.library import LIBRARY, TemplateRule

TESTS = Path(__file__).parents[1]


def written_in_python(kind: type[RuleSettings] = RuleSettings) -> Iterator[type[RuleSettings]]:
    """Every rule type of the product but those of library.toml."""
    for subclass in kind.__subclasses__():
        if not issubclass(subclass, TemplateRule):
            yield subclass
            yield from written_in_python(subclass)


def test_every_rule_type_is_in_the_catalogue() -> None:
    assert {kind for kind in written_in_python() if kind.__module__.startswith("keyark.")} == set(RULE_TYPES)


def test_every_rule_type_judges_requests() -> None:
    assert [kind for kind in (*RULE_TYPES, *LIBRARY.values()) if inspect.isabstract(kind)] == []


def test_every_rule_type_has_a_test() -> None:
    texts = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    names = (*LIBRARY, *(type_name(kind) for kind in RULE_TYPES))
    assert [name for name in names if not re.search(rf"""["'= \\]{name}["'\\]""", texts)] == []
