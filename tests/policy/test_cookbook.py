"""Guards the cookbook of docs/policy.md: each recipe, as it is written, works in a file that `init` made."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from keyark.clock import SECONDS_PER_DAY
from keyark.errors import ConfigurationError
from keyark.policy.config import build_engine, policy_section
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import (
    AnyRequest,
    Archival,
    PolicyRequest,
    Receipt,
    RecoveryRequest,
    RevocationRequest,
)
from keyark.policy.rules.enrollment import STAGES

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "policy.md"
RECIPE: Final = re.compile(r"^\*\*(\d+)\. (.*?)^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RULE: Final = re.compile(r"^\[\[policy\.rule\]\]\n(?:(?!\[).*\n)+", re.MULTILINE)
ENROLLMENT: Final = PolicyRequest(
    caller="spiffe://example.org/client/enroller",
    profile="user",
    common_name="Alice Example",
    email="alice@example.org",
    signing_key_type="ec-p256",
    encryption_key_type="ec-p256",
    archival=Archival.REQUESTED,
    receipt=Receipt.PRESENT,
)
RECOVERY: Final = RecoveryRequest(
    requester="spiffe://example.org/agent/alice",
    profile="user",
    caller="spiffe://example.org/client/enroller",
    common_name="Alice Example",
    email="alice@example.org",
    encryption_key_type="ec-p256",
    archived_days=10,
    recoveries_in_a_day=1,
)
REVOCATION: Final = RevocationRequest(
    requester="spiffe://example.org/officer/officer",
    profile="user",
    common_name="Alice Example",
    email="alice@example.org",
    change="revoke",
    reason="superseded",
    role="encryption",
    by_holder=False,
)
PORTAL: Final = {"caller": "spiffe://example.org/client/staff-portal"}
BOARD: Final = {"email": "chair@board.example.org"}
COUNCIL: Final = {"email": "pia@council.example.org"}
EXPECTED: Final[Mapping[str, list[tuple[str, dict[str, Any], bool]]]] = {
    "1": [
        ("submit", PORTAL, True),
        ("submit", {}, False),
        ("submit", {**PORTAL, "email": "x@else.org"}, False),
    ],
    "2": [
        (stage, {"encryption_key_type": key}, fits)
        for stage in ("submit", "issue")
        for key, fits in (("rsa-3072", True), ("rsa-2048", False))
    ],
    "3": [
        ("archive", {}, True),
        ("archive", BOARD, False),
        ("archive", {**BOARD, "encryption_key_type": "ml-kem-768"}, True),
    ],
    "4": [("issue", {}, True), ("issue", {"email": "eve@contractors.example.org"}, False)],
    "5": [("submit", {}, True), ("submit", {"common_name": "alice77"}, False)],
    "6": [
        ("issue", {"email": "a@mail.subsidiary.example"}, True),
        ("issue", {"email": "a@subsidiary.example.com"}, False),
    ],
    "7": [
        ("issue", {}, True),
        ("issue", {"receipt": Receipt.ABSENT, "profile": "signing-only"}, False),
        (
            "issue",
            {
                "receipt": Receipt.ABSENT,
                "profile": "signing-only",
                "caller": "spiffe://example.org/client/signing-kiosk",
            },
            True,
        ),
    ],
    "8": [
        ("recover", {}, True),
        ("recover", {"requester": "spiffe://example.org/agent/carol"}, False),
        ("recover", {"recoveries_in_a_day": 6}, False),
        ("recover", {"archived_days": 0.5}, False),
    ],
    "9": [
        ("recover", {}, True),
        ("recover", COUNCIL, False),
        ("recover", {**COUNCIL, "requester": "spiffe://example.org/agent/council"}, True),
    ],
    "10": [("submit", {}, True), ("submit", {"encryption_key_type": "rsa-3072"}, False)],
    "11": [
        ("revoke", {}, True),
        ("revoke", {"by_holder": True}, False),
        ("revoke", {"by_holder": True, "reason": "keyCompromise"}, True),
        ("revoke", {"change": "hold"}, False),
        ("revoke", {"change": "hold", "requester": "spiffe://example.org/officer/help-desk"}, True),
    ],
}
"""What each recipe has to say: stage, what is special about the request, and whether the recipe accepts it."""
RECIPES: Final = {number: (prose, text) for number, prose, text in RECIPE.findall(DOCUMENT.read_text())}


def engines_with(recipe: str, made: Path, tmp_path: Path) -> dict[str, PolicyEngine]:
    """The three services' engines, each from its file with the recipe's rules for it at the end.

    Where the recipe says "in place of", rules of the same names are taken out before.
    """
    prose, text = RECIPES[recipe]
    rules = RULE.findall(text)
    assert "".join(rules).split() == text.split()
    engines = {}
    for role in ("rm", "cm", "drm"):
        file, own = tmp_path / f"{role}.toml", [rule for rule in rules if subsystem_of(rule) == role]
        before = (made / role / f"{role}.toml").read_text()
        if "in place of" in " ".join(prose.split()):
            names = {name_of(rule) for rule in own}
            before = RULE.sub(lambda m, names=names: "" if name_of(m[0]) in names else m[0], before)
        file.write_text("\n".join([before, *own]))
        engines[role] = build_engine(role, policy_section(file))
    return engines


def name_of(rule: str) -> str:
    """The name of a rule, of which the text may end within a list."""
    found = re.search(r'^name = "(.*?)"', rule, re.MULTILINE)
    assert found
    return found[1]


def subsystem_of(rule: str) -> str:
    """The subsystem whose stage a rule names."""
    return STAGES[tomllib.loads(rule)["policy"]["rule"][0]["stage"]]


def request_for(stage: str, special: dict[str, Any]) -> AnyRequest:
    """A request of the kind that a stage has."""
    if stage == "recover":
        return replace(RECOVERY, **special)
    if stage == "revoke":
        return replace(REVOCATION, **special)
    lifetime = {"now": 0, "not_before": 0, "not_after": 365 * SECONDS_PER_DAY, "issuer_key_type": "ec-p256"}
    return replace(ENROLLMENT, **(lifetime if stage == "issue" else {}), **special)


def test_every_recipe_is_tried() -> None:
    assert list(RECIPES) == list(EXPECTED)


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recipe_works_as_written_in_the_file_that_init_made(
    recipe: str, deployment_template: Path, tmp_path: Path
) -> None:
    engines = engines_with(recipe, deployment_template, tmp_path)
    own = {name_of(rule) for rule in RULE.findall(RECIPES[recipe][1])}
    for stage, special, accepts in EXPECTED[recipe]:
        decision = engines[STAGES[stage]].evaluate(stage, request_for(stage, special))
        assert own.isdisjoint(v.rule for v in decision.rejections) == accepts, (stage, special, decision)


def test_a_rule_of_a_name_that_is_taken_is_refused(deployment_template: Path, tmp_path: Path) -> None:
    file = tmp_path / "rm.toml"
    file.write_text((deployment_template / "rm" / "rm.toml").read_text() + RECIPES["1"][1])
    with pytest.raises(ConfigurationError, match="two rules have the name who-enrolls-whom"):
        policy_section(file)


def test_a_caller_without_a_grant_is_told_which_rule_grants(
    deployment_template: Path, tmp_path: Path
) -> None:
    engine = build_engine("rm", policy_section(deployment_template / "rm" / "rm.toml"))
    request = replace(ENROLLMENT, email="mallory@example.com")
    [violation] = engine.evaluate("submit", request).rejections
    assert violation.message == (
        "client/enroller may not enroll this e-mail address; an administrator grants it in rule who-enrolls-whom"
    )
