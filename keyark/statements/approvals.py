"""Officers' approvals: what a registration officer signs when it approves a request that policy deferred.

The person's own statement stays as it was signed. What an officer edits stands beside it, in the officer's signed word:
so not even the RM can have a certificate issued under a name that neither the person nor an officer asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.exceptions import InvalidSignature

from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.identity.spiffe import SpiffeId
from keyark.statements.enrollment import Statement
from keyark.statements.signed import CLOCK_SKEW_SECONDS, IdentitySigner, SignedKind, SignerTrust, key_ids_of
from keyark.v1.approval_pb2 import ApprovalStatement
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.x509.certificates import load_certificate
from keyark.x509.names import check_name

LABEL: Final = "keyark/v1/enrollment-approval"
VERSION: Final = 1
OFFICER_ROLE: Final = "officer"
MAX_SIZE: Final = 1024
MAX_VALIDITY_DAYS: Final = 3650

_KIND: Final = SignedKind(
    message=ApprovalStatement,
    label=LABEL,
    version=VERSION,
    max_size=MAX_SIZE,
    name="approval",
    field="approval",
)


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
    """An officer's edits: the common name ("": unchanged), and the days of validity (0: as the profile says)."""

    common_name: str = ""
    validity_days: int = 0

    def check(self) -> None:
        """Raise InvalidInputError with the field if the name or the number of days is not allowed in a
        certificate.
        """
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
        return key_ids_of(load_certificate(self.signed.certificate))

    def applied_to(self, statement: Statement) -> Statement:
        """Return the statement with the approved name; its bytes, hash and ids stay those that the person signed."""
        if not self.edits.common_name:
            return statement
        return replace(statement, common_name=self.edits.common_name)


@dataclass(frozen=True, kw_only=True)
class OfficerSigner(IdentitySigner):
    """An officer's certificate and its private key."""

    def approve(self, statement: Statement, edits: Edits, *, time: int) -> SignedStatement:
        """Sign the approval of a statement at ``time`` (seconds UTC); raises InvalidInputError for bad edits."""
        edits.check()
        message = ApprovalStatement(
            version=VERSION,
            trust_domain=self.identity.trust_domain,
            officer=str(self.identity),
            enrollment_id=statement.enrollment_id,
            statement_sha256=statement.sha256,
            common_name=edits.common_name,
            validity_days=edits.validity_days,
            time=time,
        )
        return self.sign_as(_KIND, message)


@dataclass(frozen=True, kw_only=True)
class OfficerTrust(SignerTrust):
    """Whose approval counts: officers'.

    With ``max_age_seconds`` an older approval does not count, so that no officer who left approves for ever.
    """

    role = OFFICER_ROLE

    max_age_seconds: int | None = None

    def verify(self, signed: SignedStatement, statement: Statement, *, now: int) -> Approval:
        """Return what an officer approved, once it is for this statement and the officer's own word.

        The officer's certificate has to be valid at the time that the approval tells, which ``now`` (seconds UTC) is
        not before. Raises InvalidInputError with the field, ApprovalMismatchError, ApprovalSignatureError,
        UnauthenticatedError, IdentityRevokedError and CertificateChainError.
        """
        message = _KIND.decode(signed.statement)
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
        signer = self.signer(signed.certificate, at=message.time)
        officer = signer.identity
        try:
            _KIND.verify(signed.statement, signed.signature, signer.public_key)
        except InvalidSignature:
            raise ApprovalSignatureError(
                f"The signature does not verify under the certificate of {officer}; sign the very bytes that are sent."
            ) from None
        if message.officer != str(officer):
            raise ApprovalSignatureError(
                f"{officer} signed the approval, but it names another officer; approve in your own name."
            )
        return Approval(officer=officer, edits=edits, time=message.time, signed=signed)


def edits_of(signed: SignedStatement) -> Edits:
    """Return what an approval that was verified before changes; raises InvalidInputError."""
    message = _KIND.decode(signed.statement)
    return Edits(common_name=message.common_name, validity_days=message.validity_days)
