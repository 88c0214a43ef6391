"""What the client checks before it believes an answer: transport key, certificates, archival receipt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from keyark.client.access.home import Home
from keyark.client.access.transport_memory import known_transport_keys, learn, pinned_certificates
from keyark.custody.envelopes import TransportPublicKey
from keyark.errors import KeyarkError, Kind, NotFoundError
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.identity.transport import transport_spki
from keyark.keys.spki import key_id
from keyark.statements.approvals import Approval, OfficerTrust
from keyark.statements.enrollment import Statement
from keyark.statements.pairs import verify_pair
from keyark.transparency.archival import check_receipt_for
from keyark.transparency.checkpoint import CheckpointSignatureError, VerifiedHead
from keyark.transparency.receipts import ArchivalReceipt, ReceiptVerifier
from keyark.transparency.transport_keys import (
    KNOWN_KEY,
    TransportKeyRetiredError,
    certified_key_id,
)
from keyark.v1.common_pb2 import TransportCertificate
from keyark.v1.registration_pb2 import Enrollment, EnrollmentForm, EnrollmentState
from keyark.x509.certificates import load_certificate

MAX_SKEW_US: Final = 600_000_000
"""How far the clocks of client and DRM may differ before a receipt of the time of a rotation is refused."""


class UnexpectedAnswerError(KeyarkError):
    """The RM's answer does not follow the protocol; nothing of it was believed."""

    reason = "UNEXPECTED_ANSWER"
    kind = Kind.INTERNAL


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """An outcome that was verified: both certificates, their chain, and the archival receipt.

    ``transport_certificate`` (DER) is the one that verifies the receipt, empty where there is none. ``approval`` is the
    officer's who approved the request, where one had to; its edits say how the certificates differ from the request.
    """

    statement: Statement
    signing_certificate: x509.Certificate
    encryption: x509.Certificate | None
    chain: tuple[x509.Certificate, ...]
    receipt_file: bytes
    receipt: ArchivalReceipt | None
    transport_certificate: bytes
    completed_time_us: int
    approval: Approval | None = None

    @property
    def encryption_certificate(self) -> x509.Certificate:
        """The encryption certificate; raises NotFoundError if the profile has only signing certificates."""
        if self.encryption is None:
            raise NotFoundError("The profile has no encryption certificates, so `encryption` is None.")
        return self.encryption


class Verification:
    """Verifies answers against the trust anchors of a home."""

    def __init__(self, home: Home) -> None:
        self._trust_domain = home.config.trust_domain
        self._ca_anchors = home.ca_chain[-1:]
        self._known_chains = home.known_chains
        self._officers = OfficerTrust(
            trust_domain=self._trust_domain,
            anchors=[home.trust_anchor],
            revoked=NOBODY_REVOKED,  # the CM took the approval when it issued, whoever was revoked since
        )
        self._home = home
        self._transport_keys = known_transport_keys(home)
        self._certificates = {c.certificate for c in pinned_certificates(home)}

    @property
    def known_key_id(self) -> bytes:
        """The id (32 bytes) of the newest transport key that the home knows."""
        return self._transport_keys.newest_id

    def accept_form(self, form: EnrollmentForm) -> TransportPublicKey:
        """Follow the transport key as a form tells, durably, and return the key to wrap to (step 1).

        Raises as ``transport_key`` does, TransportKeyUnprovenError, and UnwritableFileError where the home cannot keep
        what was learned.
        """
        learn(self._home, self._transport_keys, form.transport_key_changes)
        self._certificates |= {change.certificate.certificate for change in form.transport_key_changes}
        return self.transport_key(form.transport_certificate)

    def transport_key(self, certificate: TransportCertificate) -> TransportPublicKey:
        """Return the transport key to wrap to: the newest that the home knows, with a certificate that is good now.

        Raises CertificateChainError, TransportCertificateError, TransportKeyRetiredError and TransportKeyUnprovenError:
        the RM can slip in neither a key of its own nor one that was retired.
        """
        spki = self._transport_keys.check_offered(certificate, at=int(time.time()))
        self._certificates.add(certificate.certificate)
        return TransportPublicKey.from_spki(spki)

    def verify_head(self, note: bytes) -> VerifiedHead:
        """Return a head that the DRM signed with a key that the home knows; raises the errors of ``NoteVerifier``."""
        return self._transport_keys.verify_head(note)[0]

    def enrolled(self, statement: Statement, answer: Enrollment, *, made_with: bytes = b"") -> Enrolled:
        """Return the outcome once both certificates and the receipt proved to be for this statement.

        ``made_with`` is the transport certificate (DER) of the form that the request was made with, as it was saved.
        Another name than the statement's is taken on the signed word of an officer only.
        """
        if answer.state != EnrollmentState.ENROLLMENT_STATE_ISSUED or not answer.HasField("certificates"):
            raise UnexpectedAnswerError(
                "The RM sent neither certificates nor a request for the private key; ask its operator."
            )
        now = int(time.time())
        approval = self._approval(statement, answer, now)
        approved = approval.applied_to(statement) if approval else statement
        pair = verify_pair(
            answer.certificates, approved, anchors=self._ca_anchors, known=self._known_chains, at=now
        )
        receipt, transport = None, b""
        if answer.receipt:
            receipt, transport = self._verify_receipt(statement, answer.receipt, made_with)
        return Enrolled(
            statement=statement,
            signing_certificate=pair.signing,
            encryption=pair.encryption,
            chain=pair.chain,
            receipt_file=answer.receipt,
            receipt=receipt,
            transport_certificate=transport,
            completed_time_us=answer.completed_time_us,
            approval=approval,
        )

    def _approval(self, statement: Statement, answer: Enrollment, now: int) -> Approval | None:
        if not answer.review.HasField("approval"):
            return None
        return self._officers.verify(answer.review.approval, statement, now=now)

    def _verify_receipt(
        self, statement: Statement, receipt: bytes, made_with: bytes
    ) -> tuple[ArchivalReceipt, bytes]:
        """Verify under a key that is known, or that the request was made with; returns its certificate (DER) too."""
        if made_with:
            self._certificates.add(made_with)
        try:
            verified, key = self._transport_keys.verify_receipt(receipt)
        except CheckpointSignatureError:
            if not made_with:
                raise
            spki = transport_spki(load_certificate(made_with), self._trust_domain)
            verified = ReceiptVerifier(f"{self._trust_domain}/drm", spki).verify(receipt)
        else:
            spki = key.public_key
            self._check_time(statement, self._transport_keys.superseded_us(key))
        check_receipt_for(verified, statement)
        return verified, self._certificate_of(spki)

    def _check_time(self, statement: Statement, superseded_us: int | None) -> None:
        """Raise where a request was made after its receipt's key had a successor, which alone could have signed it."""
        made_us = int.from_bytes(statement.request_id[:6], "big") * 1000  # a UUIDv7 begins with milliseconds
        if superseded_us is not None and made_us > superseded_us + MAX_SKEW_US:
            raise TransportKeyRetiredError(
                "The receipt is signed by a transport key that was replaced before the request was made, so "
                "it is forged. The whole answer was rejected.",
                metadata={KNOWN_KEY: self.known_key_id.hex()},
            )

    def _certificate_of(self, spki: bytes) -> bytes:
        wanted = key_id(spki)
        certificates = (TransportCertificate(certificate=der) for der in self._certificates)
        return next((c.certificate for c in certificates if certified_key_id(c) == wanted), b"")
