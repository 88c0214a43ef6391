"""P5 and P6 in the DRM alone: a key is linked once, to a certificate that is its own, and the log says so once."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from drm_service.archival.linking import CertificateLinks, IssuingCas, LinkRequest
from drm_service.records import BY_SERIAL, CERTIFICATES, TABLES, put_row, read_row
from keyark.clock import ManualClock
from keyark.errors import KeyarkError
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.keys.key_types import KeyType
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.statements.approvals import Edits, OfficerSigner, OfficerTrust
from keyark.statements.enrollment import parse_statement
from keyark.store import MemoryStore
from keyark.transparency.log import row_key
from keyark.v1.audit_pb2 import AuditEvent, EventType
from keyark.x509.authority import issue_ca, request_ca
from keyark.x509.certificates import Validity, load_certificate
from keyark.x509.chains import CertificateExpiredError
from tests.support.keys.pki import (
    CA_VALIDITY,
    DAY,
    NOW,
    TRUST_DOMAIN,
    identity_certificate,
    internal_ca,
    issue_pair,
    issuing_ca,
    private_key,
    root_ca,
    spki,
    statement_bytes,
)
from tests.support.stories.transparency import new_log

STATEMENT = parse_statement(statement_bytes())
SERIAL = b"\x51" * 16


class Links:
    """A CertificateLinks with one archived key, Alice's, on the store that runs every transaction twice."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW * 1_000_000)
        self.log = new_log(clock=self.clock)
        self.store = MemoryStore(tables=TABLES, finisher=self.log.finisher)
        self.links = CertificateLinks(
            issuers=IssuingCas(path=Path("ca.pem"), certificates=[issuing_ca().certificate]),
            officers=OfficerTrust(
                trust_domain=TRUST_DOMAIN, anchors=[internal_ca().certificate], revoked=NOBODY_REVOKED
            ),
            store=self.store,
            log=self.log,
            clock=self.clock,
        )

    async def link(self, certificate: bytes, **more: Any) -> KeyarkError | None:
        wanted = {"enrollment_id": STATEMENT.enrollment_id, "certificate": certificate} | more
        (outcome,) = await self.links.link_certificates([LinkRequest(**wanted)])
        return outcome

    def record(self) -> Any:
        return self.store.read(lambda txn: read_row(txn, STATEMENT.enrollment_id))

    async def leaves(self) -> list[AuditEvent]:
        """What the log says after it began."""
        return [AuditEvent.FromString(entry.event.leaf) for entry in await self.log.entries(after=0, limit=9)]


@pytest.fixture
async def links() -> Links:
    made = Links()
    await made.log.open(made.store)
    record = ArchivedKeyRecord(statement=STATEMENT.raw, log_index=7)
    await made.store.update(lambda txn: put_row(txn, STATEMENT.enrollment_id, record))
    return made


def certificate(**replaced: Any) -> bytes:
    """Alice's encryption certificate; keyword arguments replace what is asked for."""
    authority = replaced.pop("authority", None) or issuing_ca()
    return issue_pair(authority, **({"encryption_serial": SERIAL} | replaced)).encryption


def approved(common_name: str, path: str = "officer/jo") -> Any:
    key = private_key(KeyType.EC_P256, 910)
    signer = OfficerSigner(certificate=identity_certificate(path, key=key), private_key=key)
    return signer.approve(STATEMENT, Edits(common_name=common_name), time=NOW)


async def test_a_linked_key_names_its_certificate_and_the_log_names_both(links: Links) -> None:
    shown = certificate()
    assert await links.link(shown) is None
    record, (leaf,) = links.record(), await links.leaves()
    assert (record.certificate_serial, record.certified_index, record.log_index) == (SERIAL, 1, 7)
    assert links.store.read(lambda txn: txn.get(BY_SERIAL, SERIAL)) == STATEMENT.enrollment_id
    assert links.store.read(lambda txn: txn.get(CERTIFICATES, row_key(1))) == shown
    assert leaf == AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_KEY_CERTIFIED,
        time_us=NOW * 1_000_000,
        enrollment_id=STATEMENT.enrollment_id,
        encryption_spki_sha256=sha256(STATEMENT.encryption_spki).digest(),
        serials=[SERIAL],
        certificate_sha256=[sha256(shown).digest()],
        details_sha256=leaf.details_sha256,
    )


async def test_a_link_that_is_told_again_is_written_once(links: Links) -> None:
    asked = LinkRequest(enrollment_id=STATEMENT.enrollment_id, certificate=certificate())
    assert await links.links.link_certificates([asked, asked]) == [None, None]
    assert await links.link(asked.certificate) is None
    assert len(await links.leaves()) == 1
    assert links.store.read(lambda txn: txn.count(CERTIFICATES)) == 1


async def test_a_linked_key_is_never_linked_to_another_certificate(links: Links) -> None:
    """An RM that shows a second certificate of the CA does not take a key away from the first."""
    await links.link(certificate())
    before = links.record()
    outcome = await links.link(certificate(encryption_serial=b"\x52" * 16))
    assert outcome is not None
    assert outcome.reason == "LINKED_ELSEWHERE"
    assert links.record() == before
    assert len(await links.leaves()) == 1


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda: certificate(encryption_spki=spki(KeyType.EC_P256, 5)), "CERTIFICATE_MISMATCH"),
        (lambda: certificate(common_name="Mallory"), "CERTIFICATE_MISMATCH"),
        (lambda: certificate(authority=root_ca(name="Another CA")), "CERTIFICATE_CHAIN"),
        (lambda: b"garbage", "CERTIFICATE_FORMAT"),
    ],
)
async def test_a_certificate_that_is_not_the_keys_is_not_linked(
    links: Links, shown: Any, reason: str
) -> None:
    outcome = await links.link(shown())
    assert outcome is not None
    assert outcome.reason == reason
    assert not links.record().certificate_serial
    assert await links.leaves() == []


def test_a_certificate_is_linked_under_a_ca_certificate_that_began_later_or_has_ended() -> None:
    """The CA was certified again; certificates of before were valid together with either, or are refused."""
    authority, shown = issuing_ca(), load_certificate(certificate())
    begins = int(shown.not_valid_before_utc.timestamp())
    request = request_ca(authority.private_key, subject=authority.certificate.subject)
    for validity in (Validity(begins + 60, CA_VALIDITY.not_after), Validity(CA_VALIDITY.not_before, begins)):
        issuer = issue_ca(root_ca(), request, subject=request.subject, validity=validity)
        IssuingCas(path=Path("ca.pem"), certificates=[issuer]).check_issued(shown)
    ended = Validity(CA_VALIDITY.not_before, begins - 1)
    issuer = issue_ca(root_ca(), request, subject=request.subject, validity=ended)
    with pytest.raises(CertificateExpiredError):
        IssuingCas(path=Path("ca.pem"), certificates=[issuer]).check_issued(shown)


@pytest.mark.parametrize("name", [STATEMENT.common_name, "Alice Married"])
async def test_a_link_that_the_rm_kept_back_until_the_certificate_ended_is_taken(
    links: Links, name: str
) -> None:
    """P1: however late the link comes, and an approval with it, the key of a certificate stays recoverable."""
    shown = certificate(common_name=name)
    ends = int(load_certificate(shown).not_valid_after_utc.timestamp())
    word = None if name == STATEMENT.common_name else approved(name)
    links.clock.advance(ends - NOW + 400 * DAY)
    assert await links.link(shown, approval=word) is None
    assert links.record().certificate_serial == SERIAL


async def test_nothing_is_linked_to_a_key_that_is_not_there(links: Links) -> None:
    outcome = await links.link(certificate(), enrollment_id=b"\x01" * 32)
    assert outcome is not None
    assert outcome.reason == "NOT_FOUND"


async def test_another_name_is_linked_on_an_officers_word_for_that_name_only(links: Links) -> None:
    """P5: neither the RM nor one of its clients gives a key another owner."""
    renamed = certificate(common_name="Alice Married")
    for word, reason in (
        (None, "CERTIFICATE_MISMATCH"),
        (approved("Alice Other"), "CERTIFICATE_MISMATCH"),
        (approved("Alice Married", "client/eve"), "UNAUTHENTICATED"),
    ):
        outcome = await links.link(renamed, approval=word)
        assert outcome is not None
        assert outcome.reason == reason
    kept = await links.link(certificate(), approval=approved("Alice Married"))
    assert kept is not None
    assert kept.reason == "CERTIFICATE_MISMATCH"
    assert await links.link(renamed, approval=approved("Alice Married")) is None
    assert links.record().certificate_serial == SERIAL


async def test_one_bad_link_does_not_hurt_its_neighbours(links: Links) -> None:
    good = LinkRequest(enrollment_id=STATEMENT.enrollment_id, certificate=certificate())
    bad = LinkRequest(enrollment_id=STATEMENT.enrollment_id, certificate=b"")
    outcomes = await links.links.link_certificates([bad, good, bad])
    assert [outcome is None for outcome in outcomes] == [False, True, False]
