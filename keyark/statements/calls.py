"""Signed calls: a client says with its identity key which statements it sends, so that nobody enrolls in its name.

One signature covers all statements of a call. RM, CM and DRM each verify it up to the internal CA. CM and DRM get it
through the RM, which cannot make one: it has no client's identity key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.sizes import HASH_SIZE
from keyark.statements.enrollment import Statement
from keyark.statements.signed import (
    CLOCK_SKEW_SECONDS,
    IdentitySigner,
    SignedKind,
    Signer,
    SignerTrust,
    key_ids_of,
)
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.statement_pb2 import CallStatement
from keyark.x509.certificates import CertificateFormatError, Validity

LABEL: Final = "keyark/v1/enrollment-call"
VERSION: Final = 1
CALLER_ROLE: Final = "client"
MAX_STATEMENTS: Final = 256
MAX_SIZE: Final = 10 * 1024
MAX_CERTIFICATE_SIZE: Final = 4 * 1024

_KIND: Final = SignedKind(
    message=CallStatement,
    label=LABEL,
    version=VERSION,
    max_size=MAX_SIZE,
    name="call's statement",
    field="call",
)
_REMEMBERED_CALLS: Final = 256
_REMEMBERED_CALLERS: Final = 1024

_K = TypeVar("_K")
_V = TypeVar("_V")


class CallSignatureError(KeyarkError):
    """The call is not signed by the client that it names."""

    reason = "CALL_SIGNATURE"
    kind = Kind.INVALID
    is_final = True


class CallMismatchError(KeyarkError):
    """The signed call is another client's, of another deployment, or does not name this statement."""

    reason = "CALL_MISMATCH"
    kind = Kind.PRECONDITION
    is_final = True


class CallTimeError(KeyarkError):
    """The call was signed too long ago, or in the future; sent again, the request has a new signature."""

    reason = "CALL_TIME"
    kind = Kind.PRECONDITION


class SignedCall(NamedTuple):
    """A serialized CallStatement with signature and the signer's certificate (DER), as it is compared and looked up."""

    statement: bytes
    signature: bytes
    certificate: bytes

    @classmethod
    def of(cls, message: SignedStatement) -> SignedCall:
        """Take a call out of its message."""
        return cls(message.statement, message.signature, message.certificate)

    @property
    def message(self) -> SignedStatement:
        """The call as it travels."""
        return SignedStatement(
            statement=self.statement, signature=self.signature, certificate=self.certificate
        )


@dataclass(frozen=True, kw_only=True)
class CallSigner(IdentitySigner):
    """A client's identity certificate and its private key."""

    def sign(self, statements: Sequence[bytes], *, time: int) -> SignedCall:
        """Sign a call that sends these serialized statements, in this order, at ``time`` (seconds UTC)."""
        message = CallStatement(
            version=VERSION,
            trust_domain=self.identity.trust_domain,
            caller=str(self.identity),
            time=time,
            statement_sha256=[sha256(statement).digest() for statement in statements],
        )
        return SignedCall.of(self.sign_as(_KIND, message))


@dataclass(frozen=True, kw_only=True)
class Call:
    """A verified call: who sent which statements (their SHA-256, in order), and the sender's ``time`` (seconds UTC)."""

    caller: SpiffeId
    certificate: x509.Certificate = field(repr=False)
    time: int
    statement_sha256: Sequence[bytes] = field(repr=False)

    @cached_property
    def _named(self) -> frozenset[bytes]:
        return frozenset(self.statement_sha256)

    @cached_property
    def signer_key_ids(self) -> tuple[bytes, ...]:
        """The id of the identity key that signed the call, then those of the keys that reveal it."""
        return key_ids_of(self.certificate)

    def check_names(self, statement: Statement) -> None:
        """Raise CallMismatchError unless the statement's own caller sent it with this call.

        Raises InvalidInputError where the key to be archived would reveal the identity key (P8): that signs calls.
        """
        if statement.caller != self.caller or statement.sha256 not in self._named:
            raise CallMismatchError(
                f"The call that {self.caller} signed does not name this statement; send the request again."
            )
        if not set(self.signer_key_ids).isdisjoint(statement.encryption_key_ids):
            raise InvalidInputError(
                "The encryption key is the caller's identity key, or reveals it; make a new key pair for "
                "encryption.",
                field="encryption_spki",
            )

    def check_sends(self, caller: SpiffeId, statements: Sequence[bytes]) -> None:
        """Raise CallMismatchError unless ``caller`` signed for these serialized statements and no others, in order."""
        if self.caller != caller:
            raise CallMismatchError(
                f"The call is signed by {self.caller}, but was sent by {caller}; sign your own calls."
            )
        if list(self.statement_sha256) != [sha256(statement).digest() for statement in statements]:
            raise CallMismatchError(
                "The signed call does not name the statements of this call in their order; sign what is sent."
            )


@dataclass(frozen=True, kw_only=True)
class _ClientTrust(SignerTrust):
    role = CALLER_ROLE


@dataclass(frozen=True)
class _Caller:
    """A client, and the time over which the path that was verified for its certificate holds."""

    signer: Signer
    validity: Validity


class CallTrust:
    """Whose calls count: clients of this trust domain with certificates below these anchors that are not revoked now.

    What was verified is remembered, within bounds: an RM hands the same call along with several batches.
    """

    def __init__(
        self, *, trust_domain: str, anchors: Sequence[x509.Certificate], revoked: RevokedIdentities
    ) -> None:
        self._trust = _ClientTrust(trust_domain=trust_domain, anchors=anchors, revoked=revoked)
        self._calls: dict[SignedCall, Call] = {}
        self._callers: dict[bytes, _Caller] = {}

    def verify(self, signed: SignedCall, *, now: int, max_age_seconds: int) -> Call:
        """Return what a client sent, once it is the client's own word and ``now`` (seconds UTC) not too old.

        The certificate has to be valid at the time that the call tells. Raises InvalidInputError with the field,
        CallMismatchError, CallTimeError, CallSignatureError, UnauthenticatedError, IdentityRevokedError,
        CertificateFormatError and CertificateChainError.
        """
        call = self._calls.get(signed)
        if call is None:
            call = self._verify(signed)
            _remember(self._calls, signed, call, limit=_REMEMBERED_CALLS)
        self._trust.revoked.check(call.certificate)
        if call.time > now + CLOCK_SKEW_SECONDS:
            raise CallTimeError("The call is dated in the future; correct the client's clock.")
        if call.time < now - max_age_seconds:
            raise CallTimeError(
                "The call was signed too long ago; send the same request again, and check the client's clock."
            )
        return call

    def _verify(self, signed: SignedCall) -> Call:
        message = _parse(signed.statement)
        if message.trust_domain != self._trust.trust_domain:
            raise CallMismatchError("The call is for another trust domain; sign it for this one.")
        caller = self._caller(signed.certificate, at=message.time)
        if message.caller != str(caller.identity):
            raise CallSignatureError(
                f"{caller.identity} signed the call, but it names another caller; sign in your own name."
            )
        try:
            _KIND.verify(signed.statement, signed.signature, caller.public_key)
        except InvalidSignature:
            raise CallSignatureError(
                f"The call's signature does not verify under the certificate of {caller.identity}; sign the very bytes "
                "that are sent with its key."
            ) from None
        return Call(
            caller=caller.identity,
            certificate=caller.certificate,
            time=message.time,
            statement_sha256=tuple(message.statement_sha256),
        )

    def _caller(self, der: bytes, *, at: int) -> Signer:
        caller = self._callers.get(der)
        if caller is None or not caller.validity.not_before <= at <= caller.validity.not_after:
            caller = self._verify_caller(der, at=at)
            _remember(self._callers, der, caller, limit=_REMEMBERED_CALLERS)
        return caller.signer

    def _verify_caller(self, der: bytes, *, at: int) -> _Caller:
        if len(der) > MAX_CERTIFICATE_SIZE:
            raise CertificateFormatError(f"A client's certificate has at most {MAX_CERTIFICATE_SIZE} bytes.")
        signer = self._trust.signer(der, at=at)
        validities = [Validity.of(each) for each in signer.path]
        return _Caller(
            signer, Validity(max(v.not_before for v in validities), min(v.not_after for v in validities))
        )


def _remember(rows: dict[_K, _V], key: _K, value: _V, *, limit: int) -> None:
    """Keep a value, and forget what was kept longest where there are too many."""
    if key not in rows and len(rows) >= limit:
        del rows[next(iter(rows))]
    rows[key] = value


def _parse(raw: bytes) -> CallStatement:
    message = _KIND.decode(raw)
    if message.time <= 0:
        raise InvalidInputError("The call has no time; sign it with the clock's.", field="time")
    if not 1 <= len(message.statement_sha256) <= MAX_STATEMENTS:
        raise InvalidInputError(
            f"A call names 1 to {MAX_STATEMENTS} statements; split it.", field="statement_sha256"
        )
    if any(len(digest) != HASH_SIZE for digest in message.statement_sha256):
        raise InvalidInputError(f"Hashes have {HASH_SIZE} bytes.", field="statement_sha256")
    return message
