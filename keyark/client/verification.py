"""What the client checks before it believes an answer: transport key, certificates, archival receipt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509

from keyark.client.home import Home
from keyark.crypto.envelopes import TransportPublicKey
from keyark.errors import KeyarkError, Kind, NotFoundError
from keyark.pki.approvals import Approval, OfficerTrust
from keyark.pki.pairs import verify_pair
from keyark.pki.revoked_identities import NOBODY_REVOKED
from keyark.pki.statements import Statement
from keyark.pki.transport import TransportTrust
from keyark.transparency.archival import check_receipt_for
from keyark.transparency.checkpoint import CheckpointSignatureError
from keyark.transparency.receipts import ArchivalReceipt, ReceiptVerifier
from keyark.v1.common_pb2 import TransportCertificate
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState


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
        """The encryption certificate; raises NotFoundError where the profile has signing certificates only."""
        if self.encryption is None:
            raise NotFoundError("The profile has no encryption certificates; `encryption` is None then.")
        return self.encryption


class Verification:
    """Verifies answers against the trust anchors of a home."""

    def __init__(self, home: Home) -> None:
        self._trust_domain = home.config.trust_domain
        self._ca_anchors = home.ca_chain[-1:]
        self._officers = OfficerTrust(
            trust_domain=self._trust_domain,
            anchors=[home.trust_anchor],
            revoked=NOBODY_REVOKED,  # the CM took the approval when it issued, whoever was revoked since
        )
        self._trust = TransportTrust(anchors=[home.trust_anchor], trust_domain=self._trust_domain)
        self._keys: dict[bytes, TransportPublicKey] = {}
        self._verifiers: dict[bytes, tuple[TransportCertificate, ReceiptVerifier]] = {}

    def transport_key(self, certificate: TransportCertificate) -> TransportPublicKey:
        """Return the transport key to wrap to, verified up to the trust anchor (step 1).

        Raises CertificateChainError and TransportCertificateError: not even the RM can slip in a key.
        """
        spki = self._trust.verify(certificate, int(time.time()))
        if spki not in self._keys:
            self._keys[spki] = TransportPublicKey.from_spki(spki)
            verifier = ReceiptVerifier(f"{self._trust_domain}/drm", spki)
            self._verifiers[spki] = (TransportCertificate(certificate=certificate.certificate), verifier)
        return self._keys[spki]

    def take_older(self, certificates: Iterable[TransportCertificate]) -> None:
        """Let further transport certificates verify receipts; one that is not good is passed over."""
        for certificate in certificates:
            with contextlib.suppress(KeyarkError):
                self.transport_key(certificate)

    def enrolled(self, statement: Statement, answer: Enrollment) -> Enrolled:
        """Return the outcome once both certificates and the receipt proved to be for this statement.

        Another name than the statement's is taken on the signed word of an officer only.
        """
        if answer.state != EnrollmentState.ENROLLMENT_STATE_ISSUED or not answer.HasField("certificates"):
            raise UnexpectedAnswerError(
                "The RM answered neither with certificates nor with a request; ask its operator."
            )
        now = int(time.time())
        approval = self._approval(statement, answer, now)
        approved = approval.applied_to(statement) if approval else statement
        pair = verify_pair(answer.certificates, approved, anchors=self._ca_anchors, at=now)
        receipt, transport = None, TransportCertificate()
        if answer.receipt:
            receipt, transport = self._verify_receipt(statement, answer.receipt)
        return Enrolled(
            statement=statement,
            signing_certificate=pair.signing,
            encryption=pair.encryption,
            chain=pair.chain,
            receipt_file=answer.receipt,
            receipt=receipt,
            transport_certificate=transport.certificate,
            completed_time_us=answer.completed_time_us,
            approval=approval,
        )

    def _approval(self, statement: Statement, answer: Enrollment, now: int) -> Approval | None:
        if not answer.review.HasField("approval"):
            return None
        return self._officers.verify(answer.review.approval, statement, now=now)

    def _verify_receipt(
        self, statement: Statement, receipt: bytes
    ) -> tuple[ArchivalReceipt, TransportCertificate]:
        refusal: KeyarkError = UnexpectedAnswerError(
            "A receipt came and no transport certificate verifies it."
        )
        for certificate, verifier in self._verifiers.values():
            try:
                verified = verifier.verify(receipt)
            except CheckpointSignatureError as error:
                refusal = error  # it may be the signature of another transport key
                continue
            check_receipt_for(verified, statement)
            return verified, certificate
        raise refusal
