"""Officers' approvals: what a registration officer signs when it approves a request that policy deferred.

The person's own statement stays as it was signed. What an officer edits stands beside it, in the officer's signed word:
so not even the RM can have a certificate issued under a name that neither the person nor an officer asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from google.protobuf.message import DecodeError

from keyark.contexts import context
from keyark.errors import InvalidInputError, KeyarkError, Kind, UnauthenticatedError
from keyark.identity.certificates import identity_of
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import SigningPrivateKey, SigningPublicKey
from keyark.keys.related_keys import related_key_ids
from keyark.keys.signatures import sign_message, verify_message
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import MAX_SIGNATURE_SIZE, Statement
from keyark.v1.approval_pb2 import ApprovalStatement
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.x509.certificates import encode_certificate, load_certificate
from keyark.x509.chains import verify_chain
from keyark.x509.names import check_name

LABEL: Final = "keyark/v1/enrollment-approval"
VERSION: Final = 1
OFFICER_ROLE: Final = "officer"
MAX_SIZE: Final = 1024
MAX_VALIDITY_DAYS: Final = 3650
CLOCK_SKEW_SECONDS: Final = 300


class ApprovalSignatureError(KeyarkError):
    """The approval is not signed by the officer that it names."""

    reason = "APPROVAL_SIGNATURE"
    kind = Kind.INVALID
    is_final = True


class ApprovalMismatchError(KeyarkError):
    """The approval is for another request, of another deployment, or of another time."""

    reason = "APPROVAL_MISMATCH"
    kind = Kind.PRECONDITION
    is_final = True


class ApprovalTimeError(ApprovalMismatchError):
    """The approval was made in the future, as this service's clock has it."""

    reason = "APPROVAL_TIME"
    is_final = False


@dataclass(frozen=True, kw_only=True)
class Edits:
    """What an officer changes: the common name ("": nothing), and for how many days (0: as the profile says)."""

    common_name: str = ""
    validity_days: int = 0

    def check(self) -> None:
        """Raise InvalidInputError with the field for a name or a number of days that no certificate has."""
        if self.common_name:
            check_name(self.common_name, field="common_name")
        if not 0 <= self.validity_days <= MAX_VALIDITY_DAYS:
            raise InvalidInputError(
                f"Certificates are valid for 1 to {MAX_VALIDITY_DAYS} days; give another number.",
                field="validity_days",
            )


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A verified approval, and the message that it came in; ``time`` is the officer's, seconds UTC."""

    officer: SpiffeId
    edits: Edits
    time: int
    signed: SignedStatement = field(repr=False)

    @property
    def signer_key_ids(self) -> tuple[bytes, ...]:
        """The id of the identity key that signed the approval, then those of the keys that reveal it."""
        public_key = cast("SigningPublicKey", load_certificate(self.signed.certificate).public_key())
        return related_key_ids(encode_spki(public_key))

    def applied_to(self, statement: Statement) -> Statement:
        """Return the statement with the approved name; its bytes, hash and ids stay those that the person signed."""
        if not self.edits.common_name:
            return statement
        return replace(statement, common_name=self.edits.common_name)


@dataclass(frozen=True, kw_only=True)
class OfficerSigner:
    """An officer's certificate and its private key."""

    certificate: x509.Certificate
    private_key: SigningPrivateKey

    def approve(self, statement: Statement, edits: Edits, *, time: int) -> SignedStatement:
        """Sign the approval of a statement at ``time`` (seconds UTC); raises InvalidInputError for bad edits."""
        edits.check()
        officer = identity_of(self.certificate)
        raw = ApprovalStatement(
            version=VERSION,
            trust_domain=officer.trust_domain,
            officer=str(officer),
            enrollment_id=statement.enrollment_id,
            statement_sha256=statement.sha256,
            common_name=edits.common_name,
            validity_days=edits.validity_days,
            time=time,
        ).SerializeToString(deterministic=True)
        return SignedStatement(
            statement=raw,
            signature=sign_message(self.private_key, context(LABEL, raw)),
            certificate=encode_certificate(self.certificate),
        )


@dataclass(frozen=True, kw_only=True)
class OfficerTrust:
    """Whose approval counts: officers of this trust domain with certificates below these anchors, not revoked.

    With ``max_age_seconds`` an older approval does not count, so that no officer who left approves for ever.
    """

    trust_domain: str
    anchors: Sequence[x509.Certificate]
    revoked: RevokedIdentities
    max_age_seconds: int | None = None

    def verify(self, signed: SignedStatement, statement: Statement, *, now: int) -> Approval:
        """Return what an officer approved, once it is for this statement and the officer's own word.

        The officer's certificate has to be valid at the time that the approval tells, which ``now`` (seconds UTC) is
        not before. Raises InvalidInputError with the field, ApprovalMismatchError, ApprovalSignatureError,
        UnauthenticatedError, IdentityRevokedError and CertificateChainError.
        """
        message = _parse(signed.statement)
        edits = Edits(common_name=message.common_name, validity_days=message.validity_days)
        edits.check()
        if (message.trust_domain, message.enrollment_id, message.statement_sha256) != (
            self.trust_domain,
            statement.enrollment_id,
            statement.sha256,
        ):
            raise ApprovalMismatchError("The approval is for another request; show this one, and approve it.")
        if not 0 < message.time <= now + CLOCK_SKEW_SECONDS:
            raise ApprovalTimeError(
                "The approval is dated in the future; correct the clock of the officer or of this service."
            )
        if self.max_age_seconds is not None and message.time < now - self.max_age_seconds:
            raise ApprovalMismatchError("The approval is too old; the person has to submit a new request.")
        officer = self._signer(signed, at=message.time)
        if message.officer != str(officer):
            raise ApprovalSignatureError(
                f"The approval names another officer than {officer}, who signed it; approve in your own name."
            )
        return Approval(officer=officer, edits=edits, time=message.time, signed=signed)

    def _signer(self, signed: SignedStatement, *, at: int) -> SpiffeId:
        certificate = load_certificate(signed.certificate)
        verify_chain(certificate, intermediates=(), anchors=self.anchors, at=at)
        self.revoked.check(certificate)
        officer = identity_of(certificate)
        if officer.role != OFFICER_ROLE or officer.trust_domain != self.trust_domain:
            raise UnauthenticatedError(f"{officer} is not an officer of this deployment; approve as one.")
        try:
            if len(signed.signature) > MAX_SIGNATURE_SIZE:
                raise InvalidSignature
            public_key = cast("SigningPublicKey", certificate.public_key())
            verify_message(public_key, signed.signature, context(LABEL, signed.statement))
        except InvalidSignature:
            raise ApprovalSignatureError(
                f"The signature does not verify under the certificate of {officer}; sign the very bytes that are sent."
            ) from None
        return officer


def edits_of(signed: SignedStatement) -> Edits:
    """Return what an approval that was verified before changes; raises InvalidInputError."""
    message = _parse(signed.statement)
    return Edits(common_name=message.common_name, validity_days=message.validity_days)


def _parse(raw: bytes) -> ApprovalStatement:
    """Read the canonical encoding, the only one whose bytes can be signed, hashed and kept."""
    if len(raw) > MAX_SIZE:
        raise InvalidInputError(f"The approval has more than {MAX_SIZE} bytes.", field="approval")
    try:
        message = ApprovalStatement.FromString(raw)
    except DecodeError:
        raise InvalidInputError("The bytes are no ApprovalStatement.", field="approval") from None
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != raw:
        raise InvalidInputError("The approval is not in its canonical encoding.", field="approval")
    if message.version != VERSION:
        raise InvalidInputError(f"This release takes approvals of version {VERSION}.", field="version")
    return message
