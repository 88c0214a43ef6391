"""Revocation: final and durable with leaf, list entry and index, or nothing of it; hold and release; wrong input."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cm_service.certificates.index import Standing
from cm_service.records import CRL_CHANGES, CRL_ENTRIES
from keyark.errors import InvalidInputError, KeyarkError, PolicyRejectedError
from keyark.errors.services import StoreError
from keyark.keys.key_types import KeyType
from keyark.policy.rules.enrollment import Expression
from keyark.statements.revocations import build_revocation, sign_revocation
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.certificates_pb2 import CertificateState
from keyark.v1.revocation_pb2 import RevocationReason, RevocationStatement
from tests.support.keys.pki import DAY, NOW, private_key
from tests.support.stories.office import COMPROMISE, HOLD, OFFICER, SUPERSEDED, UNSPECIFIED, Office


@pytest.fixture
async def office() -> Office:
    return await Office().open()


async def test_a_revocation_is_told_logged_indexed_and_on_the_next_list(office: Office) -> None:
    (told,) = await office.revoke(office.signing, invalidity_time=NOW - DAY)
    assert told.state == CertificateState.CERTIFICATE_STATE_REVOKED
    assert (told.revocation_reason, told.revocation_time, told.invalidity_time) == (
        COMPROMISE,
        NOW,
        NOW - DAY,
    )
    assert office.state(office.encryption) == "VALID"
    assert office.entries() == {office.signing}
    assert office.found_by_state(CertificateState.CERTIFICATE_STATE_REVOKED) == {office.signing}
    assert office.signing not in office.found_by_state(CertificateState.CERTIFICATE_STATE_VALID)
    assert office.encryption in office.found_by_state(CertificateState.CERTIFICATE_STATE_VALID)
    ((kind, serial, details),) = await office.events()
    assert (kind, serial) == ("REVOKED", office.signing)
    assert (details.caller, details.email, details.reason, details.invalidity_time) == (
        OFFICER, "person0@example.org", "REVOCATION_REASON_KEY_COMPROMISE", NOW - DAY,
    )  # fmt: skip


async def test_both_of_a_pair_or_of_many_go_together_or_not_at_all(office: Office) -> None:
    before = office.rows()
    for wrong in (b"\x01", office.pairs[2].signing_serial):  # unknown; expired
        with pytest.raises(KeyarkError):
            await office.revoke(office.signing, office.encryption, wrong)
    assert office.rows() == before
    await office.revoke(office.signing, office.encryption)
    assert office.entries() == {office.signing, office.encryption}


async def test_what_is_the_case_already_is_confirmed_and_not_logged_again(office: Office) -> None:
    first = await office.revoke(office.signing)
    office.clock.advance(60)
    assert await office.revoke(office.signing) == first
    assert len(await office.events()) == 1
    await office.hold(office.encryption)
    held = await office.hold(office.encryption)
    assert held[0].revocation_time == NOW + 60
    assert len(await office.events()) == 2


async def test_a_held_certificate_is_released_and_can_be_held_again(office: Office) -> None:
    await office.hold(office.signing)
    assert (office.state(office.signing), office.entries()) == ("ON_HOLD", {office.signing})
    assert office.found_by_state(CertificateState.CERTIFICATE_STATE_ON_HOLD) == {office.signing}
    (released,) = await office.release(office.signing)
    assert (released.state, released.revocation_time) == (CertificateState.CERTIFICATE_STATE_VALID, 0)
    assert office.entries() == set()
    assert office.store.read(lambda txn: txn.count(CRL_CHANGES)) == 2
    await office.hold(office.signing)
    assert [kind for kind, _, _ in await office.events()] == ["HELD", "RELEASED", "HELD"]


async def test_a_held_certificate_that_is_revoked_was_out_of_force_since_it_was_held(office: Office) -> None:
    await office.hold(office.signing)
    office.clock.advance(3600)
    (revoked,) = await office.revoke(office.signing, reason=SUPERSEDED)
    assert (revoked.revocation_reason, revoked.revocation_time) == (SUPERSEDED, NOW)
    with pytest.raises(KeyarkError) as caught:
        await office.release(office.signing)
    assert caught.value.reason == "ALREADY_REVOKED"


async def test_a_compromise_is_still_recorded_of_what_was_revoked_for_less(office: Office) -> None:
    await office.revoke(office.signing, reason=SUPERSEDED)
    (told,) = await office.revoke(office.signing, reason=COMPROMISE)
    assert told.revocation_reason == COMPROMISE
    for change in (office.revoke(office.signing, reason=UNSPECIFIED), office.hold(office.signing)):
        with pytest.raises(KeyarkError) as caught:
            await change
        assert caught.value.reason == "ALREADY_REVOKED"
    assert office.store.read(lambda txn: txn.count(CRL_ENTRIES)) == 1


async def test_unknown_expired_and_not_held_have_their_reasons(office: Office) -> None:
    expired = office.pairs[2].signing_serial
    for change, reason in (
        (office.revoke(b"\x01\x02"), "NOT_FOUND"),
        (office.hold(b"\x01\x02"), "NOT_FOUND"),
        (office.release(b"\x01\x02"), "NOT_FOUND"),
        (office.revoke(expired), "ALREADY_EXPIRED"),
        (office.hold(expired), "ALREADY_EXPIRED"),
        (office.release(office.signing), "NOT_ON_HOLD"),
    ):
        with pytest.raises(KeyarkError) as caught:
            await change
        assert caught.value.reason == reason
    assert await office.events() == []


async def test_malformed_requests_are_refused_with_the_field(office: Office) -> None:
    serial = office.signing
    for change, field in (
        (office.revoke(), "serials"),
        (office.revoke(serial, serial), "serials"),
        (office.revoke(*(bytes([1, n]) for n in range(101))), "serials"),
        (office.revoke(b""), "serial"),
        (office.revoke(b"\x00\x01"), "serial"),
        (office.revoke(serial, reason=HOLD), "reason"),
        (office.revoke(serial, reason=8), "reason"),  # removeFromCRL
        (office.revoke(serial, reason=2), "reason"),  # cACompromise
        (office.revoke(serial, invalidity_time=NOW + 1), "invalidity_time"),
        (office.revoke(serial, invalidity_time=-1), "invalidity_time"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            await change
        assert caught.value.field == field


async def test_where_the_write_fails_nothing_changed_and_a_retry_revokes(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = office.rows()

    def fail(_: Any) -> None:
        raise StoreError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(office.store, "commit", fail)
        with pytest.raises(StoreError):
            await office.revoke(office.signing)
    assert office.rows() == before
    await office.revoke(office.signing)
    assert office.entries() == {office.signing}


def statement(office: Office, *serials: bytes, reason: Any = COMPROMISE) -> bytes:
    return build_revocation(
        trust_domain="example.org", serials=serials or (office.signing, office.encryption), reason=reason
    )


def rules(condition: str) -> dict[str, list[Expression]]:
    rule = {"type": "Expression", "name": "it", "stage": "revoke", "condition": condition, "message": "no"}
    return {"revoke": [Expression.model_validate(rule)]}


@pytest.mark.parametrize(
    ("condition", "refused"),
    [
        ("true", ""),
        ("false", "revoke own hold release"),
        ("by_holder", "revoke hold release"),
        ('requester == "officer/officer"', "own"),
        ('change == "revoke"', "hold release"),
        ('change != "release"', "release"),
        ('reason == "superseded" || change == "release"', "revoke hold"),
        ('reason in ["keyCompromise", "superseded", ""]', "hold"),
        ('role == "encryption"', "own hold release"),
        ('email == "person0@example.org" && profile == "user"', ""),
        ("[true][size(email)]", "revoke own hold release"),  # a rule that errs rejects
    ],
)
async def test_policy_says_who_changes_what(condition: str, refused: str) -> None:
    for change in ("revoke", "own", "hold", "release"):
        office = await Office().open()
        if change == "release":
            await office.hold(office.signing)
        before = office.rows()
        office.policy.rules = rules(condition)
        steps = {
            "revoke": lambda: office.revoke(office.encryption),  # noqa: B023 — called in this round
            "own": lambda: office.revoke_own(statement(office, reason=SUPERSEDED)),  # noqa: B023
            "hold": lambda: office.hold(office.signing),  # noqa: B023
            "release": lambda: office.release(office.signing),  # noqa: B023
        }
        if change not in refused.split():
            await steps[change]()
            continue
        with pytest.raises(PolicyRejectedError, match=r"\(it\)"):
            await steps[change]()
        assert office.rows() == before


async def test_where_policy_refuses_one_of_several_none_is_changed(office: Office) -> None:
    office.policy.rules = rules('role == "signing"')
    before = office.rows()
    with pytest.raises(PolicyRejectedError):
        await office.revoke(office.signing, office.encryption)
    assert office.rows() == before


async def test_the_holder_of_the_signing_key_revokes_both_certificates_of_the_pair(office: Office) -> None:
    raw = statement(office)
    told = await office.revoke_own(raw)
    assert {c.serial for c in told} == office.entries() == {office.signing, office.encryption}
    assert await office.revoke_own(raw) == told  # sent twice
    events = await office.events()
    assert len(events) == 2
    signed = SignedStatement.FromString(events[0][2].revocation_statement)
    assert (signed.statement, signed.certificate) == (raw, office.pairs[0].signing_certificate)


async def test_a_key_revokes_only_its_own_pair(office: Office) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    raw = statement(office)
    of_another = sign_revocation(raw, private_key(KeyType.EC_P256))
    first, second = sorted((office.signing, office.pairs[1].signing_serial))
    for attempt, reason in (
        (office.revoke_own(raw, key=other), "REVOCATION_SIGNATURE"),
        (office.revoke_own(raw, key=private_key(KeyType.EC_P256, 1)), "REVOCATION_SIGNATURE"),  # its encryption key
        (office.revoke_own(raw, signature=b"x" * 9000), "REVOCATION_SIGNATURE"),
        (office.revoke_own(statement(office, office.signing), signature=of_another), "REVOCATION_SIGNATURE"),
        (office.revoke_own(statement(office, b"\x01")), "NOT_FOUND"),
    ):  # fmt: skip
        with pytest.raises(KeyarkError) as caught:
            await attempt
        assert caught.value.reason == reason
    mixed = statement(office, first, second)
    if first == office.signing:  # the pair of the first serial number is the one whose key counts
        with pytest.raises(InvalidInputError):
            await office.revoke_own(mixed)
    assert office.entries() == set()


@pytest.mark.parametrize(
    ("replaced", "field"),
    [
        ({"version": 2}, "version"),
        ({"trust_domain": "example.com"}, "trust_domain"),
        ({"serials": []}, "serials"),
        ({"serials": [b"\x02", b"\x01"]}, "serials"),
        ({"serials": [b"\x01", b"\x01"]}, "serials"),
        ({"serials": [b"\x01", b"\x02", b"\x03"]}, "serials"),
        ({"serials": [b"\x00\x01"]}, "serial"),
        ({"reason": HOLD}, "reason"),
        ({"reason": RevocationReason.REVOCATION_REASON_PRIVILEGE_WITHDRAWN}, "reason"),
        ({"invalidity_time": -5}, "invalidity_time"),
        ({"invalidity_time": NOW + DAY}, "invalidity_time"),
    ],
)
async def test_a_statement_that_says_something_else_is_refused(
    office: Office, replaced: dict[str, Any], field: str
) -> None:
    values = {"version": 1, "trust_domain": "example.org", "serials": [office.signing], "reason": COMPROMISE}
    raw = RevocationStatement(**(values | replaced)).SerializeToString(deterministic=True)
    with pytest.raises(InvalidInputError) as caught:
        await office.revoke_own(raw)
    assert caught.value.field == field


async def test_a_statement_has_one_encoding(office: Office) -> None:
    raw = statement(office)
    for other in (raw + b"\x20\x01", raw + raw, raw + b"\xfa\x01\x00", raw[:-1] + b"\xff", b"\xff" * 2000):
        with pytest.raises(InvalidInputError) as caught:
            await office.revoke_own(other)
        assert caught.value.field == "statement"


class Standings(RuleBasedStateMachine):
    """Whatever is asked in whatever order: state, list entries and index agree with a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.office = self.loop.run_until_complete(_opened())
        self.model: dict[bytes, int | None] = {self.office.signing: None, self.office.encryption: None}

    def _try(self, change: Any) -> bool:
        try:
            self.loop.run_until_complete(change)
        except KeyarkError:
            return False
        return True

    @rule(which=st.booleans(), reason=st.sampled_from([UNSPECIFIED, COMPROMISE, SUPERSEDED]))
    def revoke(self, which: bool, reason: int) -> None:
        serial = self.office.signing if which else self.office.encryption
        before = self.model[serial]
        may = before in (None, HOLD, reason) or reason == COMPROMISE
        assert self._try(self.office.revoke(serial, reason=reason)) is may
        self.model[serial] = reason if may else before

    @rule(which=st.booleans())
    def hold(self, which: bool) -> None:
        serial = self.office.signing if which else self.office.encryption
        may = self.model[serial] in (None, HOLD)
        assert self._try(self.office.hold(serial)) is may
        self.model[serial] = HOLD if may else self.model[serial]

    @rule(which=st.booleans())
    def release(self, which: bool) -> None:
        serial = self.office.signing if which else self.office.encryption
        may = self.model[serial] == HOLD
        assert self._try(self.office.release(serial)) is may
        self.model[serial] = None if may else self.model[serial]

    @invariant()
    def all_agree(self) -> None:
        expected = {
            serial: Standing.IN_FORCE if r is None else Standing.ON_HOLD if r == HOLD else Standing.REVOKED
            for serial, r in self.model.items()
        }
        assert self.office.entries() == {s for s, standing in expected.items() if standing}
        for standing, state in (
            (Standing.IN_FORCE, CertificateState.CERTIFICATE_STATE_VALID),
            (Standing.ON_HOLD, CertificateState.CERTIFICATE_STATE_ON_HOLD),
            (Standing.REVOKED, CertificateState.CERTIFICATE_STATE_REVOKED),
        ):
            found = self.office.found_by_state(state) & set(expected)
            assert found == {s for s, held in expected.items() if held is standing}

    def teardown(self) -> None:
        self.loop.close()


async def _opened() -> Office:
    return await Office().open()


TestStandings = Standings.TestCase
TestStandings.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
