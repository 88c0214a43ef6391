"""Signed messages: read in their one canonical encoding, and signed over exactly these bytes under a label.

    KIND = SignedKind(message=CallStatement, label="keyark/v1/enrollment-call", version=1, ...)
    message = KIND.decode(raw)
    KIND.verify(raw, signature, public_key)

A message is signed either with the key that it names, or with the identity key of a person, whose certificate comes
with it: ``IdentitySigner`` signs so, and ``SignerTrust`` says whose signature counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from google.protobuf.message import Message

from keyark.canonical import NotCanonicalError, canonical, check_canonical, decode
from keyark.contexts import context
from keyark.errors import InvalidInputError, UnauthenticatedError
from keyark.identity.certificates import identity_of
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import SigningPrivateKey, SigningPublicKey
from keyark.keys.related_keys import related_key_ids
from keyark.keys.signatures import sign_message, verify_message
from keyark.keys.spki import encode_spki
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.x509.certificates import encode_certificate, load_certificate
from keyark.x509.chains import verify_chain

MAX_SIGNATURE_SIZE: Final = 8 * 1024
CLOCK_SKEW_SECONDS: Final = 300
"""How far in the future a signed time may be: the clocks of signer and verifier differ."""

_M = TypeVar("_M", bound=Message)
_ROLES: Final = {"agent": "a recovery agent", "client": "a client", "officer": "an officer"}


@dataclass(frozen=True, kw_only=True)
class SignedKind(Generic[_M]):
    """A kind of signed message; ``name`` and ``field`` are what errors call it."""

    message: type[_M]
    label: str
    version: int
    max_size: int
    name: str
    field: str

    def decode(self, raw: bytes) -> _M:
        """Read the canonical encoding; its signature is not looked at.

        Raises InvalidInputError with ``field``, or with ``version`` for one of another release.
        """
        try:
            message = decode(self.message, raw, max_size=self.max_size)
            version = cast("Any", message).version
            if version != self.version:
                raise InvalidInputError(
                    f"The {self.name} has version {version}; this release takes version {self.version}.",
                    field="version",
                )
            check_canonical(message, raw)
        except NotCanonicalError as error:
            raise InvalidInputError(f"The {self.name} {error}.", field=self.field) from None
        return message

    def sign(self, raw: bytes, private_key: SigningPrivateKey) -> bytes:
        """Sign these bytes; the key's type decides the scheme."""
        return sign_message(private_key, context(self.label, raw))

    def verify(self, raw: bytes, signature: bytes, public_key: SigningPublicKey) -> None:
        """Verify the signature over these bytes; raises cryptography.exceptions.InvalidSignature."""
        verify_signature(public_key, signature, context(self.label, raw))


def verify_signature(public_key: SigningPublicKey, signature: bytes, message: bytes) -> None:
    """Verify the signature of a labelled message; raises InvalidSignature, also where no signature is so long."""
    if len(signature) > MAX_SIGNATURE_SIZE:
        raise InvalidSignature
    verify_message(public_key, signature, message)


@dataclass(frozen=True, kw_only=True)
class IdentitySigner:
    """A person's identity certificate and its private key."""

    certificate: x509.Certificate
    private_key: SigningPrivateKey = field(repr=False)

    @property
    def identity(self) -> SpiffeId:
        """Who signs."""
        return identity_of(self.certificate)

    def sign_as(self, kind: SignedKind[_M], message: _M) -> SignedStatement:
        """Return the message in its canonical encoding, signed, with the certificate."""
        return self.sign_bytes(kind.label, canonical(message))

    def sign_bytes(self, label: str, raw: bytes) -> SignedStatement:
        """Return these bytes, signed under a label, with the certificate."""
        return SignedStatement(
            statement=raw,
            signature=sign_message(self.private_key, context(label, raw)),
            certificate=encode_certificate(self.certificate),
        )


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who signed, by a certificate whose path was verified; ``path`` ends with the anchor."""

    identity: SpiffeId
    certificate: x509.Certificate
    path: Sequence[x509.Certificate] = field(repr=False)

    @cached_property
    def public_key(self) -> SigningPublicKey:
        """The certificate's key."""
        return cast("SigningPublicKey", self.certificate.public_key())


@dataclass(frozen=True, kw_only=True)
class SignerTrust:
    """Whose word counts: a role's identities in this trust domain, certified below these anchors and not revoked."""

    role: ClassVar[str]

    trust_domain: str
    anchors: Sequence[x509.Certificate]
    revoked: RevokedIdentities

    def signer(self, certificate: bytes, *, at: int) -> Signer:
        """Return whose certificate (DER) this is, if its word counts ``at`` a time (seconds UTC).

        Raises CertificateFormatError, CertificateChainError, IdentityRevokedError and UnauthenticatedError.
        """
        loaded = load_certificate(certificate)
        path = verify_chain(loaded, intermediates=(), anchors=self.anchors, at=at)
        self.revoked.check(loaded)
        identity = identity_of(loaded)
        if identity.role != self.role or identity.trust_domain != self.trust_domain:
            raise UnauthenticatedError(
                f"{identity} is not {_ROLES[self.role]} of this deployment; sign as one."
            )
        return Signer(identity=identity, certificate=loaded, path=path)


def key_ids_of(certificate: x509.Certificate) -> tuple[bytes, ...]:
    """Return the id of a certificate's key, then those of the keys whose private half would reveal it (P8)."""
    return related_key_ids(encode_spki(certificate.public_key()))
