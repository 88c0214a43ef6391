"""P7: a list of revoked identities counts if the internal CA signed it, and is never replaced by one that says less."""

from __future__ import annotations

import datetime
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.identity.revoked import (
    MAX_SIZE,
    IdentityListError,
    IdentityRevokedError,
    OlderIdentityListError,
    RevokedIdentities,
)
from keyark.keys.key_types import KeyType
from keyark.statements.approvals import Edits, OfficerSigner, OfficerTrust
from keyark.statements.enrollment import parse_statement
from keyark.x509.authority import ca_name, create_internal_ca
from keyark.x509.certificates import load_pem_certificates
from keyark.x509.serials import serial_text
from tests.support.keys.pki import TRUST_DOMAIN, private_key, statement_bytes
from tests.support.running.rpc import current_ca, identity, identity_list

ALICE = load_pem_certificates(identity("client/alice").certificate)[0]
BOB = load_pem_certificates(identity("client/bob").certificate)[0]
FUTURE = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)


def another_ca():
    """Another internal CA of the same name, as a deployment has it that replaces its own."""
    authority = current_ca()
    key = private_key(KeyType.EC_P256, 907)
    return create_internal_ca(key, subject=ca_name("Internal CA"), validity=authority.validity)


def opened(*lists: bytes, anchors=None) -> RevokedIdentities:
    revoked = RevokedIdentities(anchors or [current_ca().certificate])
    for data in lists:
        revoked.take(revoked.newer(data))
    return revoked


def pem(der: bytes) -> bytes:
    return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)


def foreign(*extensions, issuer=None, key=None, entry_extension=None):
    """A list that the internal CA signed with a common tool instead of keyark."""
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder(last_update=now, next_update=FUTURE)
    builder = builder.issuer_name(issuer or current_ca().certificate.subject)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    entry = x509.RevokedCertificateBuilder(serial_number=ALICE.serial_number, revocation_date=now)
    if entry_extension:
        entry = entry.add_extension(entry_extension, critical=True)
    signed = builder.add_revoked_certificate(entry.build()).sign(
        key or current_ca().private_key, hashes.SHA256()
    )
    return signed.public_bytes(Encoding.PEM)


def test_who_is_on_the_list_is_refused_and_nobody_else():
    revoked = opened()
    revoked.check(ALICE)
    assert revoked.take(revoked.newer(identity_list(ALICE.serial_number))) == {ALICE.serial_number}
    with pytest.raises(IdentityRevokedError, match=serial_text(ALICE.serial_number)):
        revoked.check(ALICE)
    revoked.check(BOB)


@pytest.mark.parametrize("encode", [lambda der: der, pem], ids=["DER", "PEM"])
def test_a_list_is_taken_once(encode):
    revoked = opened(identity_list(ALICE.serial_number))
    assert revoked.newer(encode(identity_list(ALICE.serial_number, BOB.serial_number, number=2)))
    data = encode(identity_list(BOB.serial_number))
    revoked = opened(data)
    assert revoked.newer(data) == []


def test_a_list_that_another_tool_made_counts():
    assert ALICE.serial_number in opened(foreign((x509.CRLNumber(4), False))).serials


@pytest.mark.parametrize("serials", [(), (ALICE.serial_number,), (BOB.serial_number,)])
def test_an_older_list_brings_nobody_back(serials):
    revoked = opened(identity_list(ALICE.serial_number, number=5))
    with pytest.raises(OlderIdentityListError, match="number 4"):
        revoked.newer(identity_list(*serials, number=4))
    with pytest.raises(IdentityRevokedError):
        revoked.check(ALICE)


def test_another_list_of_the_same_number_is_refused():
    with pytest.raises(OlderIdentityListError):
        opened(identity_list(ALICE.serial_number)).newer(identity_list(BOB.serial_number))


def test_a_newer_list_that_takes_a_revocation_back_is_refused():
    with pytest.raises(OlderIdentityListError, match="lacks"):
        opened(identity_list(ALICE.serial_number)).newer(identity_list(BOB.serial_number, number=2))


def test_another_ca_of_the_same_name_revokes_nobody():
    with pytest.raises(IdentityListError, match="not signed"):
        opened().newer(identity_list(BOB.serial_number, authority=another_ca()))


def test_two_internal_cas_have_a_list_each():
    both = [current_ca().certificate, another_ca().certificate]
    old, new = (
        pem(identity_list(ALICE.serial_number)),
        identity_list(BOB.serial_number, authority=another_ca()),
    )
    revoked = opened(old, old + pem(new), anchors=both)
    assert revoked.serials == {ALICE.serial_number, BOB.serial_number}
    with pytest.raises(OlderIdentityListError, match="lacks"):
        revoked.newer(old)


def test_lists_of_the_store_are_restored_and_those_of_former_cas_left_out():
    stored = [identity_list(ALICE.serial_number), identity_list(BOB.serial_number, authority=another_ca())]
    revoked = opened()
    revoked.restore(stored)
    assert revoked.serials == {ALICE.serial_number}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pem(identity_list())[:200],
        pem(identity_list()) * 2,
        pem(identity_list()) + b"more",
        identity_list() + b"\0",
        identity_list()[:-1] + b"\0",
        bytes(MAX_SIZE + 1),
        foreign(),
        foreign((x509.CRLNumber(1), False), (x509.DeltaCRLIndicator(1), True)),
        foreign((x509.CRLNumber(1), False), entry_extension=x509.CRLReason(x509.ReasonFlags.key_compromise)),
        foreign((x509.CRLNumber(1), False), issuer=ca_name("Other CA")),
    ],
    ids=[
        "empty",
        "garbage",
        "cut",
        "twice",
        "more",
        "longer",
        "altered",
        "large",
        "no number",
        "delta",
        "entry",
        "issuer",
    ],
)
def test_what_is_no_full_list_of_the_internal_ca_is_refused(data):
    with pytest.raises(IdentityListError):
        opened().newer(data)


def test_the_approval_of_a_revoked_officer_counts_no_more_whatever_time_it_claims():
    olga = load_pem_certificates(identity("officer/olga").certificate)[0]
    signer = OfficerSigner(certificate=olga, private_key=private_key(KeyType.EC_P256, 903))
    statement, now = parse_statement(statement_bytes()), int(time.time())
    revoked = opened()
    trust = OfficerTrust(trust_domain=TRUST_DOMAIN, anchors=[current_ca().certificate], revoked=revoked)
    approvals = [signer.approve(statement, Edits(), time=moment) for moment in (now, now - 60)]
    for signed in approvals:
        assert trust.verify(signed, statement, now=now).officer.path == "officer/olga"
    revoked.take(revoked.newer(identity_list(olga.serial_number)))
    for signed in approvals:
        with pytest.raises(IdentityRevokedError):
            trust.verify(signed, statement, now=now)
