"""docs/policy.md is what the code's definitions say, and every policy in it loads."""

from __future__ import annotations

import re
from pathlib import Path

from keyark.policy.config import build_engine
from keyark.policy.reference import update
from keyark.policy.requests import ATTRIBUTES
from keyark.policy.rules.catalogue import RULE_TYPES, type_name
from keyark.policy.rules.enrollment import STAGES
from keyark.policy.rules.library import LIBRARY
from tests.policy.test_rules import GRANT, load

DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"


def test_the_reference_is_what_the_code_says() -> None:
    text = DOCUMENT.read_text()
    assert update(text) == text, "run make docs"
    for name in (*LIBRARY, *(type_name(kind) for kind in RULE_TYPES), *(a.name for a in ATTRIBUTES)):
        assert f"| `{name}` |" in text


def test_every_policy_in_the_document_loads(tmp_path: Path) -> None:
    policies = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(policies) >= 11
    for policy in policies:
        subsystems = {STAGES[stage] for stage in re.findall(r'stage = "(\w+)"', policy)}
        for subsystem in subsystems:
            rules = [rule for rule in policy.split("[[policy.rule]]") if _of(rule, subsystem)]
            granted = GRANT if subsystem == "rm" else ""
            text = granted + "".join("[[policy.rule]]" + rule for rule in rules)
            build_engine(subsystem, load(tmp_path, text))


def _of(rule: str, subsystem: str) -> bool:
    stage = re.search(r'stage = "(\w+)"', rule)
    return stage is not None and STAGES[stage[1]] == subsystem
