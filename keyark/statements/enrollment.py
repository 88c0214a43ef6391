"""Enrollment statements: what a client asks for, signed with its signing key (the idea of RFC 9883).

Only the canonical encoding is read, so that everyone who hashes a statement hashes the same bytes. The
signature is over ``context("keyark/v1/enrollment-statement", statement)``.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Final, cast

from cryptography.exceptions import InvalidSignature

from keyark.canonical import canonical
from keyark.contexts import context
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import (
    ENCRYPTION_KEY_TYPES,
    SIGNING_KEY_TYPES,
    KeyType,
    SigningPrivateKey,
    SigningPublicKey,
    check_key_type,
)
from keyark.keys.related_keys import related_key_ids
from keyark.keys.signatures import sign_message
from keyark.keys.spki import load_spki, spki_key_type
from keyark.keys.weak_keys import check_apart, check_public_key
from keyark.sizes import UUID_SIZE
from keyark.statements.signed import MAX_SIGNATURE_SIZE, SignedKind, verify_signature
from keyark.v1.statement_pb2 import EnrollmentStatement
from keyark.x509.names import check_email, check_kept_name, check_name, normalized_name
from keyark.x509.serials import check_serial

STATEMENT_LABEL: Final = "keyark/v1/enrollment-statement"
RENEWAL_LABEL: Final = "keyark/v1/renewal"
STATEMENT_VERSION: Final = 1
MAX_STATEMENT_SIZE: Final = 16 * 1024

_KIND: Final = SignedKind(
    message=EnrollmentStatement,
    label=STATEMENT_LABEL,
    version=STATEMENT_VERSION,
    max_size=MAX_STATEMENT_SIZE,
    name="statement",
    field="statement",
)
_PROFILE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class StatementSignatureError(KeyarkError):
    """The statement is not signed with its signing key: the proof of possession is missing."""

    reason = "STATEMENT_SIGNATURE"
    kind = Kind.INVALID
    is_final = True


class RenewalSignatureError(KeyarkError):
    """The statement is not signed with the key of the certificate that it renews."""

    reason = "RENEWAL_SIGNATURE"
    kind = Kind.INVALID
    is_final = True


@dataclass(frozen=True, kw_only=True)
class PresentCertificate:
    """What authenticates a renewal: the serial number of the current signing certificate, and its key."""

    serial: bytes
    private_key: SigningPrivateKey = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A statement that was parsed and checked, but not yet verified; ``raw`` are its exact bytes."""

    raw: bytes = field(repr=False)
    trust_domain: str
    caller: SpiffeId
    request_id: bytes
    profile: str
    common_name: str
    email: str
    signing_spki: bytes = field(repr=False)
    encryption_spki: bytes = field(repr=False)
    signing_key_type: KeyType
    encryption_key_type: KeyType | None
    """None where a signing certificate alone is asked for; ``encryption_spki`` is empty then."""
    renews: bytes = b""
    renewal_signature: bytes = field(default=b"", repr=False)

    @cached_property
    def signing_public_key(self) -> SigningPublicKey:
        """The key that the statement is signed with; raises SpkiNotCanonicalError where it is invalid."""
        return cast("SigningPublicKey", load_spki(self.signing_spki, field="signing_spki"))

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 of the statement's bytes, 32 bytes."""
        return sha256(self.raw).digest()

    @cached_property
    def enrollment_id(self) -> bytes:
        """The id under which all three subsystems know this enrollment, 32 bytes."""
        return enrollment_id(self.request_id, self.caller)

    @cached_property
    def signing_spki_sha256(self) -> bytes:
        """The signing key's id: SHA-256 of its SPKI, 32 bytes."""
        return self.signing_key_ids[0]

    @cached_property
    def encryption_spki_sha256(self) -> bytes:
        """The encryption key's id: SHA-256 of its SPKI, 32 bytes; empty where there is none."""
        return self.encryption_key_ids[0] if self.encryption_spki else b""

    @cached_property
    def signing_key_ids(self) -> tuple[bytes, ...]:
        """The signing key's id, then those of the keys whose private half would reveal this one's (P8)."""
        return related_key_ids(self.signing_spki)

    @cached_property
    def encryption_key_ids(self) -> tuple[bytes, ...]:
        """The same of the encryption key; empty where there is none."""
        return related_key_ids(self.encryption_spki) if self.encryption_spki else ()

    @property
    def archived_key_type(self) -> KeyType:
        """The type of the encryption key, for who archives it; raises InvalidInputError where there is none."""
        if self.encryption_key_type is None:
            raise InvalidInputError(
                "The statement has no encryption key, so there is none to archive.", field="encryption_spki"
            )
        return self.encryption_key_type


def parse_statement(raw: bytes) -> Statement:
    """Read a serialized EnrollmentStatement, strictly; the signature is not looked at.

    Raises InvalidInputError with the field (``statement`` for the whole), and its kinds UnsupportedKeyError,
    SpkiNotCanonicalError and WeakKeyError for the keys.
    """
    statement = reread_statement(raw)
    check_name(statement.common_name)
    check_public_key(statement.signing_spki, statement.signing_public_key, field="signing_spki")
    if statement.encryption_spki:
        field = "encryption_spki"
        encryption_key = load_spki(statement.encryption_spki, field=field)
        check_public_key(statement.encryption_spki, encryption_key, field=field)
        check_apart(statement.signing_public_key, encryption_key, field=field)
        if statement.signing_spki_sha256 in statement.encryption_key_ids:
            raise _same_key()
    return statement


def reread_statement(raw: bytes) -> Statement:
    """Read a statement that was parsed before and kept: as ``parse_statement``, but judges no name or key."""
    message = _KIND.decode(raw)
    caller = _check_request(message)
    signing_key_type = spki_key_type(message.signing_spki, field="signing_spki")
    check_key_type(signing_key_type, SIGNING_KEY_TYPES, field="signing_spki")
    encryption_key_type = _encryption_key_type(message.encryption_spki)
    if message.signing_spki == message.encryption_spki:
        raise _same_key()
    return Statement(
        raw=raw,
        trust_domain=message.trust_domain,
        caller=caller,
        request_id=message.request_id,
        profile=message.profile,
        common_name=message.common_name,
        email=message.email,
        signing_spki=message.signing_spki,
        encryption_spki=message.encryption_spki,
        signing_key_type=signing_key_type,
        encryption_key_type=encryption_key_type,
        renews=message.renews,
        renewal_signature=message.renewal_signature,
    )


def _same_key() -> InvalidInputError:
    return InvalidInputError(
        "The private key of one reveals the private key of the other. A signing key is never "
        "archived, so make two separate key pairs.",
        field="encryption_spki",
    )


def _encryption_key_type(spki: bytes) -> KeyType | None:
    if not spki:
        return None
    key_type = spki_key_type(spki, field="encryption_spki")
    check_key_type(key_type, ENCRYPTION_KEY_TYPES, field="encryption_spki")
    return key_type


def _check_request(message: EnrollmentStatement) -> SpiffeId:
    """Check who asks for what, and return the caller."""
    caller = SpiffeId.parse(message.caller, field="caller")
    if caller.role != "client":
        raise InvalidInputError("Only identities of the role client enroll.", field="caller")
    if caller.trust_domain != message.trust_domain:
        raise InvalidInputError("The trust domain is not the one of the caller.", field="trust_domain")
    if not is_uuid7(message.request_id):
        raise InvalidInputError(
            "The request id is not a UUIDv7 of 16 bytes; make a new one.", field="request_id"
        )
    _check_words(message.profile, message.common_name, message.email)
    if message.renews or message.renewal_signature:
        _check_renewal(message)
    return caller


def _check_renewal(message: EnrollmentStatement) -> None:
    check_serial(message.renews, field="renews")
    if not 1 <= len(message.renewal_signature) <= MAX_SIGNATURE_SIZE:
        raise InvalidInputError(
            "A renewal must also be signed with the key of the current certificate.",
            field="renewal_signature",
        )


def _check_words(profile: str, common_name: str, email: str) -> None:
    if not _PROFILE.fullmatch(profile):
        raise InvalidInputError(
            "The profile's name is malformed; it has 1 to 64 characters a-z, 0-9, '.', '_' and '-'.",
            field="profile",
        )
    check_kept_name(common_name, field="common_name")
    check_email(email, field="email")


def build_statement(
    *,
    caller: SpiffeId,
    request_id: bytes,
    profile: str,
    common_name: str,
    email: str,
    signing_spki: bytes,
    encryption_spki: bytes,
    present: PresentCertificate | None = None,
) -> Statement:
    """Return a statement whose ``raw`` is ready to sign; with ``present``, of a renewal.

    The common name is put into Unicode normal form C. Raises as ``parse_statement`` does.
    """
    common_name = normalized_name(common_name)
    _check_words(profile, common_name, email)  # first, for a message takes no lone surrogates
    message = EnrollmentStatement(
        version=STATEMENT_VERSION,
        trust_domain=caller.trust_domain,
        caller=str(caller),
        request_id=request_id,
        profile=profile,
        common_name=common_name,
        email=email,
        signing_spki=signing_spki,
        encryption_spki=encryption_spki,
    )
    if present is not None:
        message.renews = present.serial
        signed = context(RENEWAL_LABEL, canonical(message))
        message.renewal_signature = sign_message(present.private_key, signed)
    return parse_statement(canonical(message))


def sign_statement(raw: bytes, private_key: SigningPrivateKey) -> bytes:
    """Sign a statement with the private half of its signing key; the scheme is the key type's."""
    return _KIND.sign(raw, private_key)


def verify_statement(statement: Statement, signature: bytes) -> None:
    """Verify the proof of possession; raises StatementSignatureError."""
    try:
        _KIND.verify(statement.raw, signature, statement.signing_public_key)
    except InvalidSignature:
        raise StatementSignatureError(
            "The statement's signature does not verify under its signing key; sign the very bytes that are "
            "sent with the private half of that key."
        ) from None


def verify_renewal(statement: Statement, public_key: SigningPublicKey) -> None:
    """Verify that the holder of the present signing certificate asks for the renewal; raises RenewalSignatureError."""
    message = EnrollmentStatement.FromString(statement.raw)
    message.ClearField("renewal_signature")
    try:
        verify_signature(public_key, statement.renewal_signature, context(RENEWAL_LABEL, canonical(message)))
    except InvalidSignature:
        raise RenewalSignatureError(
            "The renewal is not signed with the key of the certificate that it names; sign it with the "
            "current signing key."
        ) from None


def enrollment_id(request_id: bytes, caller: SpiffeId) -> bytes:
    """Return request_id ‖ SHA-256(caller)[:16], 32 bytes: ordered by time, and never another caller's."""
    return request_id + sha256(str(caller).encode()).digest()[:16]


def new_request_id() -> bytes:
    """Make a UUIDv7 of the current time, 16 bytes (RFC 9562 §5.7)."""
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | (random[0] & 0x0F)
    random[2] = 0x80 | (random[2] & 0x3F)
    return (time.time_ns() // 1_000_000).to_bytes(6, "big") + bytes(random)


def is_uuid7(value: bytes) -> bool:
    """Whether these are the 16 bytes of a UUIDv7 (RFC 9562 §5.7)."""
    return len(value) == UUID_SIZE and value[6] >> 4 == 7 and value[8] >> 6 == 2
