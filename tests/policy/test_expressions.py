"""Conditions in CEL: what they see, what is refused when they are loaded, and that one that errs rejects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.errors import ConfigurationError
from keyark.policy.config import build_engine
from keyark.policy.engine import ACCEPT, Defer, PolicyEngine, Reject
from keyark.policy.expressions import MAX_SOURCE, Condition, ExpressionError, literal
from keyark.policy.requests import ATTRIBUTES, EVERYWHERE, attributes_of, sample_of
from keyark.policy.rules.library import LIBRARY
from tests.policy.test_engine import REQUEST, Scripted
from tests.policy.test_rules import GRANT, load

ISSUED = replace(REQUEST, now=1_800_000_000, not_before=1_800_000_000, not_after=1_800_000_000 + 86_400 * 100)


def decide(folder: Path, stage: str, rule: str, **changes):
    """What one more rule says of a request at a stage."""
    subsystem = {"submit": "rm", "issue": "cm", "revoke": "cm", "archive": "drm", "recover": "drm"}[stage]
    text = (GRANT if subsystem == "rm" else "") + f'[[policy.rule]]\nname = "it"\nstage = "{stage}"\n{rule}\n'
    request = replace(ISSUED if stage == "issue" else sample_of(stage), **changes)
    decision = build_engine(subsystem, load(folder, text)).evaluate(stage, request)
    return replace(decision, rejections=tuple(v for v in decision.rejections if v.rule == "it"))


def expression(condition: str, extra: str = "") -> str:
    return f"type = \"Expression\"\ncondition = '''{condition}'''\nmessage = \"ask for another one\"\n{extra}"


def test_a_condition_that_holds_accepts_and_one_that_does_not_rejects_with_its_message(
    tmp_path: Path,
) -> None:
    rule = expression('email_domain == "example.org" && encryption_key_bits >= 256')
    assert not decide(tmp_path, "submit", rule).rejections
    refused = decide(tmp_path, "submit", rule, email="alice@example.com")
    assert [(v.rule, v.message) for v in refused.rejections] == [("it", "ask for another one")]


@pytest.mark.parametrize(("profile", "rejected"), [("user", True), ("machine", False)])
def test_when_says_whom_a_rule_concerns(tmp_path: Path, profile: str, rejected: bool) -> None:
    for rule in (
        expression("false", "when = 'profile == \"user\"'"),
        'type = "KeyTypes"\nsigning = ["rsa-4096"]\nwhen = \'profile == "user"\'',
        'type = "ECKeyConstraints"\ncurves = ["ec-p521"]\nwhen = \'profile == "user"\'',
    ):
        assert bool(decide(tmp_path, "submit", rule, profile=profile).rejections) is rejected


@pytest.mark.parametrize(
    ("rule", "line", "words"),
    [
        (expression("emial == 'a'"), 4, "has no attribute emial; it has archival_requested"),
        (expression("validity_days < 3.0"), 4, "the stage 'submit' has no attribute validity_days"),
        (expression("requester == 'agent/alice'"), 4, "no attribute requester"),
        (expression("size(email) >"), 4, "this is not a CEL expression"),
        (expression("lower(email) == 'a'"), 4, "there is no function lower"),
        (expression("email"), 4, "neither true nor false"),
        (expression("email > 3"), 4, "it fails on a sample request"),
        (expression("common_name.matches('(')"), 4, "it fails on a sample request"),
        (expression("common_name.matches_kept('A')"), 4, "there is no function matches_kept"),
        (expression("true " + " " * MAX_SOURCE), 4, "at most 4096 characters"),
        (expression("true", "when = 'size(emial) > 3'"), 6, "has no attribute emial"),
        (expression("true", "when = '3'"), 6, "neither true nor false"),
        (expression("true", "unless = 'true'"), 6, "this key is unknown"),
        ('type = "Expression"\ncondition = "true"', 0, "this key is missing"),
        ('type = "ECKeyConstraints"\ncurves = ["ec-p255"]', 4, "is not allowed here"),
        ('type = "RSAKeyConstraints"\nmin_bits = "many"', 4, "integer"),
        ('type = "SubjectAltNameConstraints"\ndomains = ["Example.org"]', 4, "is not allowed here"),
        ('type = "SubjectNameConstraints"\npattern = "("', 0, "not a valid regex"),
        ('type = "SubjectNameConstraints"\npatern = "A.*"', 4, "this key is unknown"),
        ('type = "ValidityConstraints"\nmax_days = 3', 2, "does not run at stage 'submit'"),
    ],
)
def test_what_is_wrong_stops_the_start_with_file_and_line(
    tmp_path: Path, rule: str, line: int, words: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        decide(tmp_path, "submit", rule)
    assert words in refused.value.message
    section = (tmp_path / "service.toml").read_text().splitlines().index('name = "it"')
    assert f"service.toml:{section + line}: " in refused.value.message


@pytest.mark.parametrize(
    "condition",
    [
        '["a"].exists(emial, true) || emial == "x"',
        'emial == "x" || ["a"].exists(emial, true)',
        'profile != "user" && [emial].exists(emial, true)',
        'email != ".exists(emial," || emial == "x"',
        "email != r'\\' || emial == '.exists(emial,'",
        "email != '''\" .exists(emial, \"''' || emial == \"x\"",
        'email != "\\".exists(emial," || emial == "x"',
        'true || emial == "x" // .exists(emial, true)',
        '["a"].all(x, ["b"].exists(emial, true)) || ["c"].all(x, x == emial)',
    ],
)
def test_a_name_that_only_a_macro_has_is_unknown_outside_of_it(condition: str) -> None:
    with pytest.raises(ExpressionError, match="has no attribute emial"):
        Condition.compile(condition, "submit")


@pytest.mark.parametrize(
    "condition",
    [
        '["(", "example.org)"].exists(domain, email_domain + ")" == domain)',
        "[[1], [2]].all(x, x.exists(y, y > 0)) && [3].map(x, x)[0] == 3",
        '[email].exists( e , e == email) // exists("',
        'size("it\'s ( here") > 0 && [1].exists_one(n, n == 1)',
    ],
)
def test_names_that_macros_bind_are_known_in_them(condition: str) -> None:
    assert Condition.compile(condition, "submit").holds(sample_of("submit").context)


@pytest.mark.parametrize("condition", ["[1][size(email) - 17 + 1] == 1", "1 / (size(common_name) - 3) > 0"])
def test_a_condition_that_errs_rejects_and_tells_its_cause_to_the_log_alone(
    tmp_path: Path, condition: str, caplog: pytest.LogCaptureFixture
) -> None:
    for extra in ("", f"when = '''{condition}'''"):
        rule = expression(condition if not extra else "true", extra)
        refused = decide(tmp_path, "submit", rule, common_name="Bob")
        assert [v.rule for v in refused.rejections] == ["it"]
        assert "the rule itself failed" in refused.rejections[0].message
    assert "policy rule it of rm failed" in caplog.text


def test_every_attribute_is_there_at_its_stages_and_nowhere_else() -> None:
    for stage in EVERYWHERE:
        there = {attribute.name: attribute for attribute in attributes_of(stage)}
        for attribute in ATTRIBUTES:
            condition = f"type({attribute.name}) == {attribute.cel_type}"
            if attribute.name in there:
                sample = f"{attribute.name} == {attribute.name}"
                assert Condition.compile(sample, stage).holds(sample_of(stage).context)
                value = attribute.read(sample_of(stage))
                kind = {"string": str, "int": int, "double": float, "bool": bool}[attribute.cel_type]
                assert type(value) is kind
            else:
                with pytest.raises(ExpressionError, match="has no attribute"):
                    Condition.compile(condition, stage)


@pytest.mark.parametrize(
    ("key_type", "algorithm", "bits"),
    [
        ("rsa-3072", "rsa", 3072), ("ec-p521", "ec", 521), ("ed25519", "ed25519", 0), ("x25519", "x25519", 0),
        ("ml-dsa-65", "ml-dsa", 0), ("ml-kem-768", "ml-kem", 0),
    ],
)  # fmt: skip
def test_key_types_are_told_by_algorithm_and_size(key_type: str, algorithm: str, bits: int) -> None:
    request = replace(sample_of("submit"), signing_key_type=key_type, encryption_key_type=key_type)
    for role in ("signing", "encryption"):
        condition = f'{role}_key_algorithm == "{algorithm}" && {role}_key_bits == {bits}'
        assert Condition.compile(condition, "submit").holds(request.context)


@settings(deadline=None)
@given(st.text(max_size=40), st.lists(st.text(max_size=10), max_size=3))
def test_values_of_parameters_are_quoted_so_that_they_stay_values(text: str, texts: list[str]) -> None:
    condition = f"common_name == {literal(text)} && {literal(texts)} == {literal(texts)}"
    request = replace(sample_of("submit"), common_name=text)
    assert Condition.compile(condition, "submit").holds(request.context)


CLASSIC = [
    ("KeyAlgorithmConstraints", "submit", 'signing = ["ec"]', {}, {"signing_key_type": "rsa-4096"}),
    (
        "KeyAlgorithmConstraints",
        "archive",
        'encryption = ["ml-kem"]',
        {"encryption_key_type": "ml-kem-768"},
        {},
    ),
    (
        "RSAKeyConstraints",
        "submit",
        "min_bits = 3072",
        {"signing_key_type": "rsa-3072"},
        {"signing_key_type": "rsa-2048"},
    ),
    (
        "RSAKeyConstraints",
        "issue",
        "max_bits = 3072",
        {"encryption_key_type": "rsa-3072"},
        {"encryption_key_type": "rsa-4096"},
    ),
    (
        "RSAKeyConstraints",
        "submit",
        "min_bits = 3072",
        {"signing_key_type": "ec-p256"},
        {"encryption_key_type": "rsa-2048"},
    ),
    (
        "ECKeyConstraints",
        "submit",
        'curves = ["ec-p384"]',
        {"signing_key_type": "ec-p384", "encryption_key_type": "x25519"},
        {},
    ),
    (
        "ECKeyConstraints",
        "archive",
        'curves = ["ec-p256"]',
        {"encryption_key_type": "rsa-2048"},
        {"encryption_key_type": "ec-p384"},
    ),
    (
        "SubjectNameConstraints",
        "submit",
        'pattern = "A[a-z]+"',
        {"common_name": "Alice"},
        {"common_name": "Alice2"},
    ),
    ("SubjectNameConstraints", "submit", 'pattern = "A|B"', {"common_name": "B"}, {"common_name": "AB"}),
    (
        "SubjectNameConstraints",
        "submit",
        "min_length = 3\nmax_length = 4",
        {"common_name": "äöü"},
        {"common_name": "Alice"},
    ),
    (
        "SubjectNameConstraints",
        "issue",
        "min_length = 3\nmax_length = 4",
        {"common_name": "Emma"},
        {"common_name": "Al"},
    ),
    (
        "SubjectAltNameConstraints",
        "submit",
        'domains = ["example.org"]',
        {"email": "a@EXAMPLE.org"},
        {"email": "a@b.example.org"},
    ),
    (
        "SubjectAltNameConstraints",
        "submit",
        'parents = ["example.org"]',
        {"email": "a@b.example.org"},
        {"email": "a@example.org"},
    ),
    (
        "SubjectAltNameConstraints",
        "issue",
        'parents = ["example.org"]',
        {"email": "a@c.b.example.org"},
        {"email": "a@evil-example.org"},
    ),
    ("SubjectAltNameConstraints", "submit", "", None, {}),
    ("ValidityConstraints", "issue", "max_days = 100.0", {}, {"not_after": ISSUED.not_after + 1}),
    ("ValidityConstraints", "issue", "min_days = 100.0", {}, {"not_after": ISSUED.not_after - 1}),
    (
        "ValidityConstraints",
        "issue",
        "lag_seconds = 10\nskew_seconds = 5",
        {"not_before": ISSUED.now - 15},
        {"not_before": ISSUED.now - 16},
    ),
    (
        "ValidityConstraints",
        "issue",
        "lead_seconds = 10\nskew_seconds = 5",
        {"not_before": ISSUED.now + 15},
        {"not_before": ISSUED.now + 16},
    ),
    (
        "SigningAlgorithmConstraints",
        "issue",
        'issuer_key_types = ["ec-p384"]',
        {"issuer_key_type": "ec-p384"},
        {"issuer_key_type": "ec-p256"},
    ),
]


@pytest.mark.parametrize(("name", "stage", "parameters", "accepted", "rejected"), CLASSIC)
def test_classic_rules(tmp_path: Path, name: str, stage: str, parameters: str, accepted, rejected) -> None:
    base = {"issuer_key_type": "ec-p256"} if stage == "issue" else {}
    rule = f'type = "{name}"\n{parameters}'
    if accepted is not None:
        assert not decide(tmp_path, stage, rule, **base | accepted).rejections
    if rejected != {} or accepted is None:
        (violation,) = decide(tmp_path, stage, rule, **base | rejected).rejections
        assert violation.rule == "it"
        assert "{" not in violation.message
        assert "failed" not in violation.message


def test_every_ready_made_rule_type_is_tried_above() -> None:
    assert {row[0] for row in CLASSIC} == set(LIBRARY)


OUTCOMES = st.sampled_from([ACCEPT, Reject("no"), Defer("wait"), RuntimeError("broken")])
RULES = st.lists(st.tuples(OUTCOMES, st.booleans()), max_size=6)


def verdict(rules) -> str:
    scripted = [Scripted(f"r{n}", outcome, applying=applying) for n, (outcome, applying) in enumerate(rules)]
    decision = PolicyEngine(subsystem="rm", rules={"submit": scripted}).evaluate("submit", REQUEST)
    return "reject" if decision.rejections else "defer" if decision.is_deferred else "accept"


@settings(deadline=None)  # every rule that errs is logged with its traceback
@given(RULES, st.tuples(OUTCOMES, st.booleans()), st.randoms(use_true_random=False))
def test_no_further_rule_and_no_other_order_makes_a_verdict_milder(rules, more, random) -> None:
    rank = ["accept", "defer", "reject"]
    assert rank.index(verdict([*rules, more])) >= rank.index(verdict(rules))
    shuffled = [*rules]
    random.shuffle(shuffled)
    assert verdict(shuffled) == verdict(rules)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (r"common_name.matches('^Al')", True),
        (r"common_name . matches ('^al')", False),
        (r"common_name.matches(r'^\pL+ \pL+$')", True),
        (r"common_name.matches('^' + 'Alice' + ' ')", True),
        (r"'.matches(x)' != common_name && common_name.matches(common_name)", True),
        (r"['a', 'Alice'].exists(x, common_name.matches(x + ' E'))", True),
        (r"!common_name.matches('(a+)+$')", True),
    ],
)
def test_patterns_are_those_of_re2_wherever_they_stand(condition: str, holds: bool) -> None:
    request = sample_of("submit")
    assert Condition.compile(condition, "submit").holds(request.context) is holds


def test_a_pattern_that_a_request_makes_wrong_rejects(tmp_path: Path) -> None:
    decision = decide(tmp_path, "submit", expression("email.matches(common_name)"), common_name="(")
    assert decision.rejections
