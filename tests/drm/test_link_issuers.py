"""Which certificates the archive links: those that its CAs issued, whatever the archive's clock says."""

from __future__ import annotations

from pathlib import Path

import pytest

from drm_service.archival.linking import CertificateLinks, IssuingCas, LinkRequest
from drm_service.archival.steps import ArchiveRequest
from drm_service.records import read_row
from keyark.clock import ManualClock
from keyark.errors import KeyarkError
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.keys.key_types import KeyType
from keyark.statements.approvals import Edits, OfficerSigner, OfficerTrust
from keyark.statements.enrollment import parse_statement
from keyark.x509.authority import Authority, ca_name, create_root
from keyark.x509.certificates import save_certificates
from tests.drm.test_archival import Archive, request
from tests.support.keys.pki import (
    CA_VALIDITY,
    NOW,
    identity_certificate,
    internal_ca,
    issue_pair,
    issuing_ca,
    private_key,
)

HOUR = 3600


def certificate(
    sent: ArchiveRequest, *, authority: Authority | None = None, name: str = "Alice Example"
) -> bytes:
    statement = parse_statement(sent.statement)
    pair = issue_pair(
        authority or issuing_ca(),
        common_name=name,
        signing_spki=statement.signing_spki,
        encryption_spki=statement.encryption_spki,
    )
    return pair.encryption


class Links:
    """The archive's links, with a clock of their own and a ca.pem."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        self.archive, self.path = archive, folder / "ca.pem"
        self.clock = ManualClock(NOW * 1_000_000)
        save_certificates(self.path, [issuing_ca().certificate])
        self.links = CertificateLinks(
            issuers=IssuingCas.load(self.path),
            officers=OfficerTrust(
                trust_domain="example.org", anchors=[internal_ca().certificate], revoked=NOBODY_REVOKED
            ),
            store=archive.store,
            log=archive.log,
            clock=self.clock,
        )

    async def link(self, sent: ArchiveRequest, certificate: bytes, **options: object) -> str:
        link = LinkRequest(
            enrollment_id=parse_statement(sent.statement).enrollment_id,
            certificate=certificate,
            **options,  # type: ignore[arg-type]
        )
        (outcome,) = await self.links.link_certificates([link])
        return outcome.reason if isinstance(outcome, KeyarkError) else ""


@pytest.fixture
async def links(tmp_path: Path) -> Links:
    archive = Archive(tmp_path)
    await archive.log.open(archive.store)
    return Links(archive, tmp_path)


@pytest.mark.parametrize("seconds", [-48 * HOUR, -HOUR, 0, 20 * 365 * 24 * HOUR])
async def test_a_clock_that_is_wrong_keeps_no_key_from_being_recovered(links: Links, seconds: int) -> None:
    sent = request()
    await links.archive.archive(sent)
    links.clock.advance(seconds)
    assert await links.link(sent, certificate(sent)) == ""
    row = links.archive.store.read(lambda txn: read_row(txn, parse_statement(sent.statement).enrollment_id))
    assert row is not None
    assert row.certificate_serial


async def test_an_approval_counts_by_a_clock_that_is_behind(links: Links) -> None:
    sent = request()
    await links.archive.archive(sent)
    key = private_key(KeyType.EC_P256, 903)
    officer = OfficerSigner(
        certificate=identity_certificate("officer/jo", key=key, validity=CA_VALIDITY), private_key=key
    )
    approval = officer.approve(parse_statement(sent.statement), Edits(common_name="Alice Other"), time=NOW)
    links.clock.advance(-48 * HOUR)
    other = certificate(sent, name="Alice Other")
    assert await links.link(sent, other) == "CERTIFICATE_MISMATCH"
    assert await links.link(sent, other, approval=approval) == ""


async def test_a_ca_that_came_later_counts_once_its_file_is_read_again(links: Links) -> None:
    sent = request()
    await links.archive.archive(sent)
    newer = create_root(
        private_key(KeyType.EC_P256, 950), subject=ca_name("Newer CA"), validity=CA_VALIDITY, path_length=1
    )
    issued = certificate(sent, authority=newer)
    assert await links.link(sent, issued) == "CERTIFICATE_CHAIN"
    links.path.unlink()
    save_certificates(links.path, [newer.certificate, issuing_ca().certificate])
    assert await links.link(sent, issued) == "CERTIFICATE_CHAIN"
    assert "2 issuing CAs" in await links.links.issuers.reload()
    assert await links.link(sent, issued) == ""
    second = request(1)
    await links.archive.archive(second)
    assert await links.link(second, certificate(second)) == "", "the earlier CA's certificates as well"


async def test_a_file_that_cannot_be_read_changes_nothing(links: Links) -> None:
    sent = request()
    await links.archive.archive(sent)
    links.path.write_text("no certificate")
    with pytest.raises(KeyarkError):
        await links.links.issuers.reload()
    assert await links.link(sent, certificate(sent)) == ""


async def test_a_certificate_of_no_ca_here_is_refused_at_any_time(links: Links) -> None:
    sent = request()
    await links.archive.archive(sent)
    stranger = create_root(
        private_key(KeyType.EC_P256, 951), subject=issuing_ca().certificate.subject, validity=CA_VALIDITY,
        path_length=1,
    )  # fmt: skip
    assert await links.link(sent, certificate(sent, authority=stranger)) == "CERTIFICATE_CHAIN"
    other = request(2)
    assert await links.link(sent, certificate(other)) == "CERTIFICATE_MISMATCH"
