"""A request with its keys, ready to be saved and sent: what the client makes of an enrollment at first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.custody.envelopes import TransportPublicKey, seal_to_transport
from keyark.errors import InvalidInputError
from keyark.keys.key_types import PrivateKey, SigningPrivateKey
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import Statement, parse_statement, sign_statement
from keyark.v1.registration_pb2 import EnrollmentRequest


@dataclass(frozen=True, kw_only=True)
class PreparedEnrollment:
    """A signed request with its keys, which stay on this machine. Save it before you submit it."""

    statement: Statement
    signature: bytes
    signing_key: SigningPrivateKey = field(repr=False)
    encryption_key: PrivateKey | None = field(repr=False)
    transport_certificate: bytes = b""

    @classmethod
    def restore(
        cls,
        statement: bytes,
        *,
        signing_key: SigningPrivateKey,
        encryption_key: PrivateKey | None,
        transport_certificate: bytes = b"",
    ) -> Self:
        """Rebuild a saved request: the same statement, signed again; raises if a key does not belong to it.

        ``transport_certificate`` (DER) is the one of the form with which the request was made. A receipt of
        that time is verified with it, whatever the transport key is now.
        """
        return cls.of(
            parse_statement(statement),
            signing_key=signing_key,
            encryption_key=encryption_key,
            transport_certificate=transport_certificate,
        )

    @classmethod
    def of(
        cls,
        statement: Statement,
        *,
        signing_key: SigningPrivateKey,
        encryption_key: PrivateKey | None,
        transport_certificate: bytes = b"",
    ) -> Self:
        """As ``restore``, for a statement that was parsed."""
        if encode_spki(signing_key.public_key()) != statement.signing_spki:
            raise InvalidInputError(
                "The saved signing key does not belong to the saved request.", field="signing_key"
            )
        if spki_of(encryption_key) != statement.encryption_spki:
            raise InvalidInputError(
                "The saved encryption key does not belong to the saved request.", field="encryption_key"
            )
        signature = sign_statement(statement.raw, signing_key)
        return cls(
            statement=statement,
            signature=signature,
            signing_key=signing_key,
            encryption_key=encryption_key,
            transport_certificate=transport_certificate,
        )

    def request(self, recipient: TransportPublicKey | None) -> EnrollmentRequest:
        """Return the request as it is sent, with the encryption key wrapped to ``recipient`` where there is one."""
        wrapped = b""
        if recipient is not None and self.encryption_key is not None:
            wrapped = seal_to_transport(
                self.encryption_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                transport_public_key=recipient,
                statement_sha256=self.statement.sha256,
            )
        return EnrollmentRequest(
            statement=self.statement.raw, signature=self.signature, wrapped_private_key=wrapped
        )


def spki_of(key: PrivateKey | None) -> bytes:
    """Return a key's SubjectPublicKeyInfo (DER), empty where there is none."""
    return encode_spki(key.public_key()) if key is not None else b""
