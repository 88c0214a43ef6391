"""Each rule type: what it rejects, what it accepts, and how it is configured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.config import Config, load_config
from keyark.errors import ConfigurationError, PolicyRejectedError
from keyark.policy.config import PolicyConfig, build_engine
from keyark.policy.requests import Archival, PolicyRequest, Receipt, sample_of
from keyark.policy.rules.enrollment import in_domain
from keyark.policy.rules.revocation import REASONS as REVOCATION_REASONS
from keyark.x509.crl_entries import REASONS
from tests.policy.test_engine import REQUEST


class File(Config):
    """A configuration with policy only."""

    policy: PolicyConfig


def load(folder: Path, text: str) -> PolicyConfig:
    path = folder / "service.toml"
    path.write_text(text)
    return load_config(path, File).policy


GRANT = """
[[policy.rule]]
name = "grants"
type = "CallerSubjects"
stage = "submit"
callers = [
    { caller = "client/enroller", domains = ["example.org"], addresses = ["boss@example.com"], common_names = [".+"] }
]
"""


def violations(folder: Path, subsystem: str, rule: str, request: PolicyRequest) -> list[str]:
    """The rules that reject, for a configuration of one more rule."""
    stage = {"rm": "submit", "cm": "issue", "drm": "archive"}[subsystem]
    text = (GRANT if subsystem == "rm" else "") + f'[[policy.rule]]\nname = "it"\nstage = "{stage}"\n{rule}\n'
    decision = build_engine(subsystem, load(folder, text)).evaluate(stage, request)
    return [violation.rule for violation in decision.rejections]


@pytest.mark.parametrize(
    ("subsystem", "rule", "accepted", "rejected"),
    [
        ("drm", 'type = "KeyTypes"\nencryption = ["rsa-2048"]', {}, {"encryption_key_type": "ec-p256"}),
        ("rm", 'type = "KeyTypes"\nsigning = ["ec-p256"]', {}, {"signing_key_type": "rsa-2048"}),
        ("rm", 'type = "SubjectConstraints"\ncommon_name_pattern = "A.*"', {}, {"common_name": "Bob"}),
        ("rm", 'type = "SubjectConstraints"\ncommon_name_pattern = "Alice"', {"common_name": "Alice"}, {}),
        (
            "cm",
            'type = "SubjectConstraints"\nemail_domains = ["example.org"]',
            {},
            {"email": "a@example.com"},
        ),
        ("cm", 'type = "Validity"\nmax_days = 100', {}, {"not_after": 86_400 * 101}),
        ("cm", 'type = "Validity"\nmin_days = 10\nmax_days = 100', {}, {"not_after": 86_400 * 9}),
        ("cm", 'type = "Validity"\nmax_days = 100', {}, {"not_after": None}),
        ("drm", 'type = "ArchivalRequired"', {}, {"archival": Archival.ABSENT}),
        ("cm", 'type = "ReceiptRequired"', {}, {"receipt": Receipt.ABSENT}),
        ("cm", 'type = "Receipt"', {}, {"receipt": Receipt.ABSENT}),
        ("cm", 'type = "Archival"', {}, {"archival": Archival.ABSENT}),
        ("drm", 'type = "Archival"\narchival = "forbidden"', {"archival": Archival.ABSENT}, {}),
        ("rm", 'type = "Archival"\narchival = "forbidden"', {"archival": Archival.ABSENT}, {}),
        ("cm", 'type = "Archival"\narchival = "permitted"', {}, None),
        ("rm", 'type = "Archival"\narchival = "permitted"', {"archival": Archival.ABSENT}, None),
    ],
)
def test_a_rule_accepts_and_rejects(
    tmp_path: Path, subsystem: str, rule: str, accepted: dict, rejected: dict | None
) -> None:
    assert violations(tmp_path, subsystem, rule, replace(REQUEST, **accepted)) == []
    if rejected is not None:
        assert violations(tmp_path, subsystem, rule, replace(REQUEST, **rejected)) == ["it"]


@pytest.mark.parametrize(
    ("rule", "accepted", "rejected"),
    [
        ("", {}, None),
        (
            'officers = ["officer/eve", "officer/officer"]',
            {},
            {"requester": "spiffe://example.org/officer/eva"},
        ),
        ('officers = ["officer/eve"]', {"requester": "spiffe://example.org/client/x", "by_holder": True}, {}),
        ('officer_reasons = ["superseded"]', {"reason": "superseded"}, {"reason": "keyCompromise"}),
        ("officer_reasons = []", {"by_holder": True}, {}),
        ("", {"change": "release", "reason": ""}, None),
        (
            'officer_reasons = ["certificateHold"]',
            {"change": "release", "reason": ""},
            {"change": "revoke", "reason": "unspecified"},
        ),
        (
            'officer_reasons = ["superseded"]',
            {"change": "revoke", "reason": "superseded"},
            {"change": "release", "reason": ""},
        ),
        (
            'holder_reasons = ["keyCompromise"]',
            {"by_holder": True},
            {"by_holder": True, "reason": "superseded"},
        ),
        ("holder_reasons = []", {}, {"by_holder": True}),
        ("", {"by_holder": True}, {"by_holder": True, "change": "hold", "reason": "certificateHold"}),
    ],
)
def test_revocation_is_for_listed_officers_and_reasons(
    tmp_path: Path, rule: str, accepted: dict, rejected: dict | None
) -> None:
    text = f'[[policy.rule]]\nname = "it"\ntype = "Revocation"\nstage = "revoke"\n{rule}\n'
    engine = build_engine("cm", load(tmp_path, text))
    engine.enforce("revoke", replace(sample_of("revoke"), **accepted))
    if rejected is not None:
        with pytest.raises(PolicyRejectedError, match=r"\(it\)"):
            engine.enforce("revoke", replace(sample_of("revoke"), **rejected))


@pytest.mark.parametrize(("profile", "deferred"), [("user", False), ("board", True)])
def test_manual_approval_defers_and_nothing_goes_on_by_itself(
    tmp_path: Path, profile: str, deferred: bool
) -> None:
    rule = """
        [[policy.rule]]
        name = "it"
        type = "ManualApproval"
        stage = "submit"
        when = 'profile == "board"'
        message = "ask Eve"
    """
    engine = build_engine("rm", load(tmp_path, GRANT + rule))
    request = replace(REQUEST, profile=profile)
    decision = engine.evaluate("submit", request)
    assert decision.is_deferred is deferred
    assert [v.message for v in decision.deferrals] == ["ask Eve"] * deferred
    if deferred:
        with pytest.raises(PolicyRejectedError, match="ask Eve"):
            engine.enforce("submit", request)
        refused = engine.evaluate("submit", replace(request, email="x@example.com"))
        assert not refused.is_deferred
        assert [v.rule for v in refused.rejections] == ["grants"]


def test_a_rule_is_for_its_profiles_only(tmp_path: Path) -> None:
    rule = 'type = "ReceiptRequired"\nprofiles = ["user"]'
    absent = replace(REQUEST, receipt=Receipt.ABSENT)
    assert violations(tmp_path, "cm", rule, absent) == ["it"]
    assert violations(tmp_path, "cm", rule, replace(absent, profile="other")) == []


@pytest.mark.parametrize(
    ("caller", "email", "granted"),
    [
        ("client/enroller", "alice@example.org", True),
        ("client/enroller", "alice@EXAMPLE.org", True),
        ("client/enroller", "boss@example.com", True),
        ("client/enroller", "other@example.com", False),
        ("client/enroller", "alice@sub.example.org", False),
        ("client/enroller", "alice@evil-example.org", False),
        ("client/other", "alice@example.org", False),
    ],
)
def test_a_caller_enrolls_only_what_it_was_granted(
    tmp_path: Path, caller: str, email: str, granted: bool
) -> None:
    request = replace(REQUEST, caller=f"spiffe://example.org/{caller}", email=email)
    decision = build_engine("rm", load(tmp_path, GRANT)).evaluate("submit", request)
    assert [v.rule for v in decision.rejections] == ([] if granted else ["grants"])


SELF = """
[[policy.rule]]
name = "grants"
type = "CallerSubjects"
stage = "{stage}"
callers = [
    {{ caller = "client/alice", addresses = ["alice@example.org"], common_names = ["Alice Example"] }},
    {{ caller = "client/alice", addresses = ["sales@example.org"], common_names = ["Sales [0-9]+"] }},
]
"""


@pytest.mark.parametrize(
    ("name", "email", "granted"),
    [
        ("Alice Example", "alice@example.org", True),
        ("Sales 7", "sales@example.org", True),
        ("Bob Example", "alice@example.org", False),
        ("Alice Example", "sales@example.org", False),
        ("Sales 7", "alice@example.org", False),
        ("Alice Example, CEO", "alice@example.org", False),
        ("alice example", "alice@example.org", False),
        ("Sales 7\n", "sales@example.org", False),
        ("", "alice@example.org", False),
    ],
)
@pytest.mark.parametrize(("subsystem", "stage"), [("rm", "submit"), ("cm", "issue"), ("drm", "archive")])
def test_a_caller_gives_nobody_a_name_that_it_was_not_granted(
    tmp_path: Path, subsystem: str, stage: str, name: str, email: str, granted: bool
) -> None:
    request = replace(REQUEST, caller="spiffe://example.org/client/alice", common_name=name, email=email)
    decision = build_engine(subsystem, load(tmp_path, SELF.format(stage=stage))).evaluate(stage, request)
    assert [v.rule for v in decision.rejections] == ([] if granted else ["grants"])


@pytest.mark.parametrize("names", ["", "common_names = []", 'common_names = [""]', 'common_names = ["("]'])
def test_a_grant_without_names_stops_the_start(tmp_path: Path, names: str) -> None:
    text = GRANT.replace(', common_names = [".+"]', names and f", {names}")
    with pytest.raises(ConfigurationError, match="callers"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("email", "domain", "inside"),
    [
        ("a@example.org", "example.org", True),
        ("a@x.example.org", "*.example.org", True),
        ("a@x.y.example.org", "*.example.org", True),
        ("a@example.org", "*.example.org", False),
        ("a@xexample.org", "*.example.org", False),
        ("a@example.org.evil.com", "example.org", False),
    ],
)
def test_domains_are_compared_whole(email: str, domain: str, inside: bool) -> None:
    assert in_domain(email, domain) is inside


@given(st.from_regex(r"[a-z0-9-]{1,10}(\.[a-z0-9-]{1,10}){0,3}", fullmatch=True))
def test_no_other_domain_passes_for_ours(host: str) -> None:
    assert in_domain(f"a@{host}", "example.org") is (host == "example.org")
    assert in_domain(f"a@{host}", "*.example.org") is host.endswith(".example.org")


@pytest.mark.parametrize(
    ("rule", "line", "says"),
    [
        ('name = "x"\ntype = "NoSuchRule"\nstage = "issue"', 3, "NoSuchRule"),
        ('name = "x"\ntype = "Validity"\nstage = "issue"\nmax_days = 3\nmin_weeks = 2', 6, "unknown"),
        ('name = "x"\ntype = "Validity"\nstage = "submit"\nmax_days = 3', 4, "does not run at stage"),
        ('name = "x"\ntype = "Validity"\nstage = "nowhere"\nmax_days = 3', 4, "submit"),
        ('name = "x"\ntype = "KeyTypes"\nstage = "issue"\nsigning = ["x25519"]', 5, "ec-p256"),
        (
            'name = "x"\ntype = "SubjectConstraints"\nstage = "issue"\ncommon_name_pattern = "("',
            5,
            "not a valid regex",
        ),
        (
            'name = "x"\ntype = "SubjectConstraints"\nstage = "issue"\ncommon_name_pattern = "(a)\\\\1"',
            5,
            "not a valid regex",
        ),
        ('name = "x"\ntype = "Archival"\nstage = "submit"', 1, "require it at 'issue'"),
        ('name = "x"\ntype = "Archival"\nstage = "issue"\narchival = "always"', 5, "'required', 'permitted'"),
        (
            'name = "x"\ntype = "ArchivalRequired"\nstage = "issue"\narchival = "forbidden"',
            1,
            "use the type Archival",
        ),
        ('name = "x"\ntype = "Receipt"\nstage = "archive"', 4, "does not run at stage"),
        ('name = "x"\ntype = "Receipt"\nstage = "issue"\nmax_days = 3', 5, "unknown"),
        ('name = "x"\ntype = "ManualApproval"\nstage = "issue"', 4, "does not run at stage"),
        ('name = "x"\ntype = "ManualApproval"\nstage = "submit"\nmessage = ""', 5, "at least 1 character"),
        ('name = "x"\ntype = "Revocation"\nstage = "issue"', 4, "does not run at stage"),
        ('name = "x"\ntype = "Revocation"\nstage = "revoke"\nofficers = ["agent/alice"]', 5, "officer/NAME"),
        ('name = "x"\ntype = "Revocation"\nstage = "revoke"\nofficers = ["officer/../x"]', 5, "officers"),
        (
            'name = "x"\ntype = "Revocation"\nstage = "revoke"\nholder_reasons = ["lost"]',
            5,
            "'keyCompromise'",
        ),
        ('name = "X y"\ntype = "ReceiptRequired"\nstage = "issue"', 2, "pattern"),
        ('type = "ReceiptRequired"\nstage = "issue"', 1, "missing"),
    ],
)
def test_a_wrong_rule_is_refused_with_file_and_line(tmp_path: Path, rule: str, line: int, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, f"[[policy.rule]]\n{rule}\n")
    assert f"service.toml:{line}:" in caught.value.message
    assert says in caught.value.message


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two rules have the name grants"):
        load(tmp_path, GRANT + GRANT)


def test_a_rule_at_anothers_stage_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="stage 'submit'"):
        build_engine("cm", load(tmp_path, GRANT))


def test_the_rm_does_not_start_without_grants(tmp_path: Path) -> None:
    rule = '[[policy.rule]]\nname = "k"\ntype = "KeyTypes"\nstage = "submit"\n'
    with pytest.raises(ConfigurationError, match="CallerSubjects"):
        build_engine("rm", load(tmp_path, rule))
    with pytest.raises(ConfigurationError, match="CallerSubjects"):
        build_engine("rm", load(tmp_path, GRANT + 'profiles = ["user"]\n'))


def test_the_digest_is_that_of_the_policy(tmp_path: Path) -> None:
    same, other = load(tmp_path, GRANT), load(tmp_path, GRANT.replace("boss@", "chief@"))
    assert same.digest() == load(tmp_path, "# a comment\n" + GRANT).digest()
    assert same.digest() != other.digest()


@pytest.mark.parametrize(
    "rule",
    [
        'type = "SubjectConstraints"\ncommon_name_pattern = "(a+)+b"',
        'type = "SubjectNameConstraints"\npattern = "(a+)+b"',
        'type = "Expression"\ncondition = "common_name.matches(\'^(a+)+b$\')"\nmessage = "no"',
    ],
)
def test_no_name_makes_a_pattern_take_long(tmp_path: Path, rule: str) -> None:
    """A pattern that backtracks takes 2^63 steps for this name, and the service stands still meanwhile."""
    text = GRANT + f'[[policy.rule]]\nname = "slow"\nstage = "submit"\n{rule}\n'
    with pytest.raises(PolicyRejectedError):
        build_engine("rm", load(tmp_path, text)).enforce("submit", replace(REQUEST, common_name="a" * 64))


def test_the_reasons_of_the_rule_are_those_of_the_contract() -> None:
    assert list(REVOCATION_REASONS) == list(REASONS)
