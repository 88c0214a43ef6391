"""Whether an answer is right: each one is checked, and a sample by the SDK's whole verification too.

Every answer: both certificates are signed by the issuing CA, each holds the key and the owner of its role, and the
receipt proves this very key archived. The sample: whatever a client of the SDK would refuse.
"""

from __future__ import annotations

import random

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from keyark.client.access.home import Home
from keyark.client.trust.verification import Verification
from keyark.custody.envelopes import TransportPublicKey
from keyark.errors import KeyarkError, Kind
from keyark.rpc.errors import error_from_status
from keyark.statements.enrollment import Statement
from keyark.transparency.archival import check_receipt_for
from keyark.transparency.receipts import ReceiptVerifier
from keyark.v1.common_pb2 import ArchivalPolicy, CertificatePair, TransportCertificate
from keyark.v1.registration_pb2 import Enrollment, EnrollmentForm, EnrollmentOutcome, EnrollmentState


class WrongAnswerError(KeyarkError):
    """An answer that a client would have to refuse."""

    reason = "WRONG_ANSWER"
    kind = Kind.INTERNAL


class AnswerChecker:
    """Checks answers against the trust anchors of a home; ``sample`` is the share that is checked fully."""

    def __init__(self, home: Home, form: EnrollmentForm, *, sample: float, seed: int) -> None:
        self._issuer = home.ca_chain[0]
        self._full = Verification(home)
        self._sample, self._chance = sample, random.Random(seed)  # noqa: S311 — which answers, not keys
        self._origin = f"{home.config.trust_domain}/drm"
        self._receipts_required = form.archival != ArchivalPolicy.ARCHIVAL_POLICY_FORBIDDEN
        self._verifiers: dict[bytes, ReceiptVerifier] = {}
        self._full.accept_form(form)
        self.transport_key = self.trust(form.transport_certificate)
        self.checked_fully = 0

    def trust(self, certificate: TransportCertificate) -> TransportPublicKey:
        """Return the key to wrap to, verified up to the trust anchor."""
        key = self._full.transport_key(certificate)
        if key.key_id not in self._verifiers:
            spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self._verifiers[key.key_id] = ReceiptVerifier(self._origin, spki)
        return key

    def failure(self, statement: Statement, outcome: EnrollmentOutcome) -> KeyarkError | None:
        """Return why an outcome is no success, or None where it is one."""
        if outcome.HasField("error"):
            return error_from_status(outcome.error)
        try:
            self.check(statement, outcome.enrollment)
        except KeyarkError as error:
            return error
        return None

    def check(self, statement: Statement, answer: Enrollment) -> None:
        """Raise WrongAnswerError, or what the SDK raises, unless the answer is right for this statement."""
        if answer.state != EnrollmentState.ENROLLMENT_STATE_ISSUED:
            raise WrongAnswerError(f"The answer's state is {EnrollmentState.Name(answer.state)}.")
        self._check_pair(statement, answer.certificates)
        if answer.receipt:
            self._check_receipt(statement, answer.receipt)
        elif self._receipts_required:
            raise WrongAnswerError("The answer has no archival receipt.")
        if self._chance.random() < self._sample:
            self._full.enrolled(statement, answer)
            self.checked_fully += 1

    def _check_pair(self, statement: Statement, pair: CertificatePair) -> None:
        for der, spki, signs in (
            (pair.signing_certificate, statement.signing_spki, True),
            (pair.encryption_certificate, statement.encryption_spki, False),
        ):
            try:
                certificate = x509.load_der_x509_certificate(der)
                certificate.verify_directly_issued_by(self._issuer)
                found = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
                names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, x509.ExtensionNotFound):
                raise WrongAnswerError("A certificate is malformed, or not the issuing CA's.") from None
            if found != spki or [name.value for name in names] != [statement.common_name]:
                raise WrongAnswerError("A certificate is for another key or another person.")
            if usage.digital_signature is not signs:
                raise WrongAnswerError("A certificate is for the other role.")

    def _check_receipt(self, statement: Statement, receipt: bytes) -> None:
        refusal: KeyarkError = WrongAnswerError("No transport key verifies the receipt.")
        for verifier in self._verifiers.values():
            try:
                check_receipt_for(verifier.verify(receipt), statement)
            except KeyarkError as error:
                refusal = error
            else:
                return
        raise refusal
