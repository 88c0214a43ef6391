"""Requests and decisions count only as their agent's own, canonical, unexpired and bound words."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyark.custody.shares import Share
from keyark.custody.storage import HybridPrivateKey, SealError
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.errors import InvalidInputError, KeyarkError
from keyark.identity.certificates import request_identity
from keyark.identity.revoked import NOBODY_REVOKED, IdentityRevokedError, RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate_signing
from keyark.service.program.initialization import save_request
from keyark.statements.ceremonies import (
    AgentSigner,
    AgentTrust,
    Opening,
    agent_key_of,
    ceremony_digest,
    check_reason,
    open_recovered_key,
    open_released_share,
    seal_recovered_key,
    seal_released_share,
    share_key_of,
    sign_decision,
    sign_request,
    verify_decision,
    verify_request,
)
from keyark.statements.enrollment import new_request_id
from keyark.text.characters import without_joiners
from keyark.v1.ceremony_pb2 import (
    AgentKey,
    CeremonyStatement,
    CeremonyType,
    Decision,
    DecisionStatement,
    SignedStatement,
)
from keyark.x509.certificates import load_certificates
from tests.support.running.rpc import identity_list

NOW = int(time.time()) + 86_400  # within the lives of certificates that are made while the tests run
OPENING = Opening(digest=os.urandom(32), leaf_hash=os.urandom(32))
RECIPIENT = HybridPrivateKey.generate()
DAYS = 86_400


def authority(folder: Path, domain: str = "example.org") -> DeploymentAuthority:
    return DeploymentAuthority.create(
        folder, trust_domain=domain, root_key_type=KeyType.EC_P256, key_password=None
    )


def signer(folder: Path, issuer: DeploymentAuthority, path: str = "agent/alice") -> AgentSigner:
    key, identity = generate_signing(KeyType.EC_P256), SpiffeId(issuer.trust_domain, path)
    name = f"{path.replace('/', '-')}-{os.urandom(4).hex()}"
    save_request(folder / f"{name}.csr", request_identity(key, identity))
    issuer.sign_identity(folder / f"{name}.csr", identity, folder / f"{name}.pem")
    return AgentSigner(certificate=load_certificates(folder / f"{name}.pem")[0], private_key=key)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agents")


@pytest.fixture(scope="module")
def issuer(folder: Path) -> DeploymentAuthority:
    return authority(folder / "authority")


@pytest.fixture(scope="module")
def alice(folder: Path, issuer: DeploymentAuthority) -> AgentSigner:
    return signer(folder, issuer)


@pytest.fixture(scope="module")
def trust(issuer: DeploymentAuthority) -> AgentTrust:
    return AgentTrust(
        trust_domain="example.org", anchors=[issuer.internal.certificate], revoked=NOBODY_REVOKED
    )


def recovery(**fields: object) -> CeremonyStatement:
    values: dict[str, object] = {
        "type": CeremonyType.CEREMONY_TYPE_RECOVER_KEYS,
        "ceremony_id": new_request_id(),
        "reason": "disk broke",
        "key_ids": [bytes(32)],
        "recipient_public_key": RECIPIENT.public_key.to_bytes(),
    }
    return CeremonyStatement(**(values | fields))  # type: ignore[arg-type]


def refused(action, *arguments, **options) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(KeyarkError) as refusal:
        action(*arguments, **options)
    return refusal.value.reason


def test_a_request_verifies_as_it_was_signed(alice: AgentSigner, trust: AgentTrust) -> None:
    signed = sign_request(recovery(), alice)
    request = verify_request(signed, trust, at=NOW)
    assert request.requester == alice.identity
    assert request.digest == ceremony_digest(signed.statement)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": 0},
        {"type": 99},
        {"ceremony_id": bytes(16)},
        {"ceremony_id": b""},
        {"reason": ""},
        {"reason": "x" * 501},
        {"reason": "a\nb"},
        {"key_ids": []},
        {"key_ids": [bytes(31)]},
        {"key_ids": [b"\2" * 32, b"\1" * 32]},
        {"key_ids": [bytes(32)] * 2},
        {"key_ids": [n.to_bytes(32, "big") for n in range(101)]},
        {"recipient_public_key": b""},
        {"recipient_public_key": bytes(1215)},
        {"quorum": 2},
        {"storage_key_id": bytes(32)},
    ],
)
def test_a_malformed_request_is_not_even_signed(alice: AgentSigner, fields: dict[str, object]) -> None:
    assert refused(sign_request, recovery(**fields), alice) == "INVALID_INPUT"


def test_words_of_others_are_refused(
    folder: Path, issuer: DeploymentAuthority, alice: AgentSigner, trust: AgentTrust
) -> None:
    bob, client = signer(folder, issuer, "agent/bob"), signer(folder, issuer, "client/enroller")
    stranger = signer(folder, authority(folder / "other"), "agent/alice")
    foreign = signer(folder, authority(folder / "foreign", "example.com"), "agent/alice")
    good = sign_request(recovery(), alice)
    for wrong, reason in (
        (SignedStatement(statement=good.statement, signature=good.signature), "CERTIFICATE_FORMAT"),
        (bob.sign_bytes("keyark/v1/ceremony", good.statement), "CEREMONY_SIGNATURE"),
        (alice.sign_bytes("keyark/v1/ceremony-decision", good.statement), "CEREMONY_SIGNATURE"),
        (sign_request(recovery(), client), "UNAUTHENTICATED"),
        (sign_request(recovery(), stranger), "CERTIFICATE_CHAIN"),
        (sign_request(recovery(), foreign), "CERTIFICATE_CHAIN"),
    ):
        assert refused(verify_request, wrong, trust, at=NOW) == reason
    assert refused(verify_request, good, trust, at=NOW + 10_000 * DAYS) == "CERTIFICATE_EXPIRED"
    assert refused(verify_request, good, trust, at=NOW - 10_000 * DAYS) == "CERTIFICATE_NOT_YET_VALID"


def test_bytes_that_are_not_canonical_are_refused_though_signed(
    alice: AgentSigner, trust: AgentTrust
) -> None:
    raw = sign_request(recovery(), alice).statement
    for odd in (b"", b"\xff", raw + raw, raw + b"\xf8\x07\x01", raw[:-1], raw + bytes(1 << 20)):
        signed = alice.sign_bytes("keyark/v1/ceremony", odd)
        assert refused(verify_request, signed, trust, at=NOW) == "INVALID_INPUT"


def test_a_decision_is_for_one_opening_and_at_its_time(alice: AgentSigner, trust: AgentTrust) -> None:
    approve, time_us = Decision.DECISION_APPROVE, NOW * 1_000_000
    signed = sign_decision(OPENING, alice, decision=approve, time_us=time_us)
    assert verify_decision(signed, OPENING, trust, at=NOW).approves
    assert verify_decision(signed, OPENING, trust).agent == alice.identity  # long after, by its own time
    for other in (
        Opening(digest=os.urandom(32), leaf_hash=OPENING.leaf_hash),
        Opening(digest=OPENING.digest, leaf_hash=os.urandom(32)),
    ):
        assert refused(verify_decision, signed, other, trust, at=NOW) == "DECISION_MISMATCH"
    late = sign_decision(OPENING, alice, decision=approve, time_us=(NOW + 10_000 * DAYS) * 1_000_000)
    assert refused(verify_decision, late, OPENING, trust) == "CERTIFICATE_EXPIRED"
    assert verify_decision(late, OPENING, trust, at=NOW).approves  # what counts at once is the reader's clock
    after = NOW + 10_000 * DAYS
    assert refused(verify_decision, signed, OPENING, trust, at=after) == "CERTIFICATE_EXPIRED"
    for wrong in (
        {"decision": 0, "time_us": time_us},
        {"decision": approve, "time_us": 0},
        {"decision": approve, "time_us": time_us, "reason": "because"},
        {"decision": Decision.DECISION_REJECT, "time_us": time_us},
    ):
        assert refused(sign_decision, OPENING, alice, **wrong) == "INVALID_INPUT"


@given(index=st.integers(1, 255), value=st.binary(min_size=32, max_size=32))
def test_a_released_share_opens_for_its_opening_and_storage_key_only(index: int, value: bytes) -> None:
    share, key_id = Share(index, value), os.urandom(32)
    sealed = seal_released_share(share, RECIPIENT.public_key, OPENING, key_id)
    assert open_released_share(sealed, RECIPIENT, OPENING, key_id) == share
    other_leaf = Opening(digest=OPENING.digest, leaf_hash=bytes(32))
    other_ceremony = Opening(digest=bytes(32), leaf_hash=OPENING.leaf_hash)
    for opening, storage_key_id in ((other_leaf, key_id), (other_ceremony, key_id), (OPENING, bytes(32))):
        with pytest.raises(SealError):
            open_released_share(sealed, RECIPIENT, opening, storage_key_id)


def length_prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def test_the_digest_is_that_of_the_label_and_every_byte_of_the_statement(alice: AgentSigner) -> None:
    raw = sign_request(recovery(), alice).statement
    assert ceremony_digest(raw) == sha256(length_prefixed(b"keyark/v1/ceremony", raw)).digest()


def test_each_type_of_ceremony_has_its_own_fields(alice: AgentSigner, trust: AgentTrust) -> None:
    untyped: dict[str, object] = {"key_ids": [], "recipient_public_key": b""}
    agent = AgentKey(agent="agent/alice", certificate=b"c", share_public_key=b"k", signature=b"s")
    rotation = CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY
    resealing = CeremonyType.CEREMONY_TYPE_RESEAL_KEYS
    change = CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS
    for good in (
        {"type": rotation},
        {"type": resealing, "storage_key_id": bytes(32)},
        {"type": change, "agents": [agent], "quorum": 1},
    ):
        request = verify_request(sign_request(recovery(**untyped, **good), alice), trust, at=NOW)
        assert request.type == good["type"]
        assert len(request.ceremony_id) == 16
    assert [share.agent for share in request.agents] == ["agent/alice"]
    for wrong, field in (
        ({"type": rotation, "quorum": 1}, "quorum"),
        ({"type": resealing}, "storage_key_id"),
        ({"type": resealing, "storage_key_id": bytes(31)}, "storage_key_id"),
        ({"type": resealing, "storage_key_id": bytes(33)}, "storage_key_id"),
        ({"type": change, "agents": [agent]}, "quorum"),
        ({"type": change, "quorum": 1}, "agents"),
    ):
        with pytest.raises(InvalidInputError) as refusal:
            sign_request(recovery(**untyped, **wrong), alice)
        assert refusal.value.field == field


def altered(
    signed: SignedStatement, kind: type, signer: AgentSigner, label: str, **fields: object
) -> SignedStatement:  # type: ignore[type-arg]
    """The statement with other fields, signed anew by whoever signed it: what an agent's own hostile program sends."""
    message = kind.FromString(signed.statement)
    for name, value in fields.items():
        setattr(message, name, value)
    return signer.sign_bytes(label, message.SerializeToString(deterministic=True))


@pytest.mark.parametrize(
    "fields", [{"reason": "x" * 500}, {"key_ids": [n.to_bytes(32, "big") for n in range(100)]}]
)
def test_a_request_may_be_as_large_as_the_limits_say(
    alice: AgentSigner, trust: AgentTrust, fields: dict[str, object]
) -> None:
    verify_request(sign_request(recovery(**fields), alice), trust, at=NOW)


def test_a_decision_counts_up_to_the_last_second_of_its_certificate(
    alice: AgentSigner, trust: AgentTrust
) -> None:
    end = int(alice.certificate.not_valid_after_utc.timestamp())
    for second, reason in ((end, ""), (end + 1, "CERTIFICATE_EXPIRED")):
        time_us = second * 1_000_000 + 999_999
        signed = sign_decision(OPENING, alice, decision=Decision.DECISION_APPROVE, time_us=time_us)
        if reason:
            assert refused(verify_decision, signed, OPENING, trust) == reason
        else:
            assert verify_decision(signed, OPENING, trust).approves


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 2}, "INVALID_INPUT"),
        ({"version": 0}, "INVALID_INPUT"),
        ({"trust_domain": "example.com"}, "CEREMONY_SIGNATURE"),
        ({"requester": "spiffe://example.org/agent/bob"}, "CEREMONY_SIGNATURE"),
        ({"requester": "nobody"}, "INVALID_INPUT"),
        ({"reason": ""}, "INVALID_INPUT"),
        ({"reason": "one line\nand another"}, "INVALID_INPUT"),
        ({"reason": "   "}, "INVALID_INPUT"),
        ({"ceremony_id": bytes(16)}, "INVALID_INPUT"),
    ],
)
def test_a_request_that_its_own_signer_altered_is_refused(
    alice: AgentSigner, trust: AgentTrust, fields: dict[str, object], reason: str
) -> None:
    good = sign_request(recovery(), alice)
    assert altered(good, CeremonyStatement, alice, "keyark/v1/ceremony").statement == good.statement
    wrong = altered(good, CeremonyStatement, alice, "keyark/v1/ceremony", **fields)
    assert refused(verify_request, wrong, trust, at=NOW) == reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 2}, "INVALID_INPUT"),
        ({"agent": "spiffe://example.org/agent/bob"}, "CEREMONY_SIGNATURE"),
        ({"decision": 3}, "INVALID_INPUT"),
        ({"reason": "because"}, "INVALID_INPUT"),
        ({"time_us": -1}, "INVALID_INPUT"),
    ],
)
def test_a_decision_that_its_own_signer_altered_is_refused(
    alice: AgentSigner, trust: AgentTrust, fields: dict[str, object], reason: str
) -> None:
    good = sign_decision(OPENING, alice, decision=Decision.DECISION_APPROVE, time_us=NOW * 1_000_000)
    wrong = altered(good, DecisionStatement, alice, "keyark/v1/ceremony-decision", **fields)
    assert refused(verify_decision, wrong, OPENING, trust, at=NOW) == reason


def test_a_rejection_says_why_and_does_not_approve(alice: AgentSigner, trust: AgentTrust) -> None:
    reject, time_us = Decision.DECISION_REJECT, NOW * 1_000_000
    signed = sign_decision(OPENING, alice, decision=reject, time_us=time_us, reason="not she")
    decision = verify_decision(signed, OPENING, trust, at=NOW)
    assert not decision.approves
    assert decision.message.reason == "not she"
    for reason in ("a\nb", "\u200b", "x" * 501):
        assert refused(sign_decision, OPENING, alice, decision=reject, time_us=time_us, reason=reason)


def test_a_signature_that_is_cut_off_longer_or_another_is_refused(
    alice: AgentSigner, trust: AgentTrust
) -> None:
    good = sign_request(recovery(), alice)
    for signature in (
        b"",
        good.signature[:-1],
        good.signature + b"\0",
        bytes(129),
        bytes(len(good.signature)),
    ):
        wrong = SignedStatement(statement=good.statement, signature=signature, certificate=good.certificate)
        assert refused(verify_request, wrong, trust, at=NOW) == "CEREMONY_SIGNATURE"


def test_only_certificates_of_the_own_trust_domain_speak_for_agents(
    issuer: DeploymentAuthority, alice: AgentSigner
) -> None:
    """Also where one internal CA served several trust domains."""
    elsewhere = AgentTrust(
        trust_domain="example.com", anchors=[issuer.internal.certificate], revoked=NOBODY_REVOKED
    )
    assert refused(verify_request, sign_request(recovery(), alice), elsewhere, at=NOW) == "UNAUTHENTICATED"


def test_an_agents_share_key_is_the_same_in_its_message_and_back() -> None:
    key = AgentKey(
        agent="agent/alice", certificate=b"certificate", share_public_key=b"share", signature=b"signature"
    )
    share_key = share_key_of(key)
    assert (share_key.agent, share_key.certificate) == ("agent/alice", b"certificate")
    assert (share_key.public_key, share_key.signature) == (b"share", b"signature")
    assert agent_key_of(share_key) == key


def test_what_is_sealed_as_a_share_and_is_none_is_refused() -> None:
    key_id = os.urandom(32)
    info = length_prefixed(b"keyark/v1/ceremony-share", OPENING.digest, OPENING.leaf_hash, key_id)
    for plain in (b"", b"\x01", b"\x00" + bytes(32), b"\x01" + bytes(31)):
        sealed = RECIPIENT.public_key.encrypt(plain, info)
        with pytest.raises(KeyarkError):
            open_released_share(sealed, RECIPIENT, OPENING, key_id)


def test_a_recovered_key_opens_for_its_ceremony_and_key_only() -> None:
    digest, key_id = os.urandom(32), os.urandom(32)
    sealed = seal_recovered_key(b"a private key", RECIPIENT.public_key, digest, key_id)
    assert open_recovered_key(sealed, RECIPIENT, digest, key_id) == b"a private key"
    stranger = HybridPrivateKey.generate()
    for key, ceremony, wanted in ((stranger, digest, key_id), (RECIPIENT, key_id, digest)):
        with pytest.raises(SealError):
            open_recovered_key(sealed, key, ceremony, wanted)


@given(st.text(max_size=600) | st.text(st.characters(max_codepoint=127), max_size=600))
@example("\U000e0100")
@example("x" * 501)
def test_a_reason_is_one_printable_line(text: str) -> None:
    try:
        taken = check_reason(text)
    except InvalidInputError:
        assert not (1 <= len(text) <= 500 and text.isascii() and text.isprintable() and text.strip())
    else:
        assert taken == text
        assert 1 <= len(text) <= 500
        assert without_joiners(text).isprintable()


def test_the_words_of_a_revoked_agent_count_no_more(issuer: DeploymentAuthority, alice: AgentSigner) -> None:
    revoked = RevokedIdentities([issuer.internal.certificate])
    trust = AgentTrust(trust_domain="example.org", anchors=[issuer.internal.certificate], revoked=revoked)
    request = sign_request(recovery(), alice)
    decision = sign_decision(OPENING, alice, decision=Decision.DECISION_APPROVE, time_us=NOW * 1_000_000)
    verify_request(request, trust, at=NOW)
    serial = alice.certificate.serial_number
    revoked.take(revoked.newer(identity_list(serial, authority=issuer.internal)))
    for refuse in (
        lambda: verify_request(request, trust, at=NOW),
        lambda: verify_decision(decision, OPENING, trust, at=NOW),
        lambda: verify_decision(decision, OPENING, trust),  # whatever time it claims
    ):
        with pytest.raises(IdentityRevokedError):
            refuse()
    assert trust.is_revoked(request)
