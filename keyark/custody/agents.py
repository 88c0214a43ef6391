"""Recovery agents' share keys: MLKEM768-X25519 pairs apart from the agents' certificates.

The certificate key signs the share key's public half, so that nobody can put a key of his own in its place.
Renewing a certificate leaves the share alone. On disk a share key is two standard PKCS#8 PEM blocks,
ML-KEM-768 then X25519; its public file is JSON.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyark.contexts import context
from keyark.custody.storage import HybridPrivateKey, HybridPublicKey
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.identity.certificates import identity_of
from keyark.keys.key_types import PrivateKey
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.private_keys import (
    KeyFileError,
    PasswordRequiredError,
    WrongPasswordError,
    encode_private_key,
)
from keyark.keys.spki import encode_spki
from keyark.x509.certificates import Validity, encode_certificate, load_certificate
from keyark.x509.chains import verify_chain

SHARE_KEY_LABEL: Final = "keyark/v1/share-key"

_AGENT_ROLE: Final = "agent"
_BINARY_FIELDS: Final = ("certificate", "public_key", "signature")
_PEM_FILE: Final = re.compile(rb"\s*".join([rb"(-----BEGIN [A-Z ]+-----[^-]+-----END [A-Z ]+-----)"] * 2))
_ECDSA: Final = ec.ECDSA(hashes.SHA256())


class ShareKeyError(KeyarkError):
    """An agent's share key is not signed by the agent, or the agent is none."""

    reason = "SHARE_KEY"
    kind = Kind.INVALID


class FormerShareKeyError(KeyarkError):
    """A change of agents would give a share to a share key that an earlier change took out."""

    reason = "FORMER_SHARE_KEY"
    kind = Kind.PRECONDITION


class ShareKey(HybridPrivateKey):
    """The private half of an agent's share key pair."""

    def to_pem(self, *, password: bytes | None) -> bytes:
        """Return both component keys as PKCS#8 PEM, encrypted if there is a password.

        Raises PasswordRequiredError for an empty one.
        """
        return b"".join(encode_private_key(part, password=password) for part in self.parts)

    @classmethod
    def from_pem(cls, data: bytes, *, password: bytes | None) -> ShareKey:
        """Load what ``to_pem`` wrote; raises PasswordRequiredError, WrongPasswordError and KeyFileError."""
        blocks = _PEM_FILE.fullmatch(data.strip())
        if blocks is None:
            raise _no_share_key()
        mlkem, x25519 = (_load_block(block, password) for block in blocks.groups())
        if not isinstance(mlkem, MLKEM768PrivateKey) or not isinstance(x25519, X25519PrivateKey):
            raise _no_share_key()
        return cls(mlkem, x25519)


def _load_block(block: bytes, password: bytes | None) -> PrivateKeyTypes:
    encrypted = block.startswith(b"-----BEGIN ENCRYPTED")
    if encrypted and not password:
        raise PasswordRequiredError("The share key is encrypted; give its password.")
    try:
        return load_pem_private_key(block, password if encrypted else None)
    except PARSING_ERRORS:
        if encrypted:
            raise WrongPasswordError(
                "The password does not open the share key, or the file is damaged."
            ) from None
        raise _no_share_key() from None


def _no_share_key() -> KeyFileError:
    return KeyFileError(
        "The file has no share key, which is an ML-KEM-768 and an X25519 key in PEM (PKCS#8)."
    )


@dataclass(frozen=True, kw_only=True)
class AgentShareKey:
    """What an agent gives to the DRM: its share public key, signed with the agent's certificate key."""

    agent: str
    """SPIFFE ID."""
    certificate: bytes
    """DER."""
    public_key: bytes
    """1216 bytes, as in ``keyark.custody.storage``."""
    signature: bytes
    """ECDSA with SHA-256 (DER) over label, agent and public key."""

    @classmethod
    def create(
        cls, *, share_key: ShareKey, certificate: x509.Certificate, certificate_key: PrivateKey
    ) -> AgentShareKey:
        """Sign a share public key as the agent of this certificate.

        Raises ShareKeyError if the certificate is not an agent's, not P-256 or not for this key, and
        UnauthenticatedError if it names no identity.
        """
        agent, public_key = str(identity_of(certificate)), share_key.public_key.to_bytes()
        if encode_spki(_agent_key(certificate)) != encode_spki(certificate_key.public_key()):
            raise ShareKeyError(
                f"The key does not belong to the certificate of {agent}; give the agent's own key."
            )
        return cls(
            agent=agent,
            certificate=encode_certificate(certificate),
            public_key=public_key,
            signature=_sign(certificate_key, agent, public_key),
        )

    def verify(self, trust_anchor: x509.Certificate, *, at: int | None = None) -> HybridPublicKey:
        """Return the public key if certificate, role and signature are valid at ``at`` (seconds UTC; default:
        now).

        Raises ShareKeyError if they are not the agent's, CertificateChainError, CertificateFormatError,
        UnauthenticatedError for a certificate that names no identity, and InvalidInputError for a malformed
        key.
        """
        certificate = load_certificate(self.certificate)
        moment = int(time.time()) if at is None else at
        verify_chain(certificate, intermediates=(), anchors=[trust_anchor], at=moment)
        identity, key = str(identity_of(certificate)), _agent_key(certificate)
        if identity != self.agent:
            raise ShareKeyError(
                f"The certificate belongs to {identity}, but the share key names another agent; ask the agent "
                "for it again."
            )
        try:
            key.verify(self.signature, _signed(self.agent, self.public_key), _ECDSA)
        except InvalidSignature:
            raise ShareKeyError(
                f"The share key is not signed by {identity}; ask the agent for it again."
            ) from None
        return HybridPublicKey.from_bytes(self.public_key)

    def recertified(
        self,
        certificate: x509.Certificate,
        *,
        trust_anchor: x509.Certificate,
        certificate_key: PrivateKey | None,
    ) -> AgentShareKey:
        """Return the same share key under a newer certificate of its agent, whose key signs it.

        Where the certificate is of the same key as before, ``certificate_key`` may be None: that key's signature stays.
        Raises ShareKeyError where the certificate is another agent's or another key's, and as ``verify`` does at the
        time of the certificate before, which may have ended.
        """
        before = load_certificate(self.certificate)
        self.verify(trust_anchor, at=Validity.of(before).not_before)
        if str(identity_of(certificate)) != self.agent:
            raise ShareKeyError(f"The certificate does not belong to {self.agent}; give the agent's own.")
        signer = before if certificate_key is None else certificate_key
        if encode_spki(_agent_key(certificate)) != encode_spki(signer.public_key()):
            raise ShareKeyError(
                f"The key does not belong to the certificate of {self.agent}; give the agent's own key."
            )
        signature = self.signature
        if certificate_key is not None:
            signature = _sign(certificate_key, self.agent, self.public_key)
        return replace(self, certificate=encode_certificate(certificate), signature=signature)

    def to_json(self) -> str:
        """Return the public file of an agent's share key: JSON, binary values in base64."""
        binary = {name: base64.b64encode(getattr(self, name)).decode() for name in _BINARY_FIELDS}
        return json.dumps({"agent": self.agent, **binary}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AgentShareKey:
        """Read what ``to_json`` wrote; raises InvalidInputError."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise _no_public_file() from None
        if not isinstance(values, dict) or set(values) != {"agent", *_BINARY_FIELDS}:
            raise _no_public_file()
        if not all(isinstance(value, str) for value in values.values()):
            raise _no_public_file()
        try:
            binary = {name: base64.b64decode(values[name], validate=True) for name in _BINARY_FIELDS}
        except ValueError:
            raise _no_public_file() from None
        return cls(agent=values["agent"], **binary)


def check_not_former(agents: Iterable[AgentShareKey], former: Collection[bytes]) -> None:
    """Raise FormerShareKeyError where an agent of a new set has a share key of ``former`` (SHA-256 of public keys).

    A lost or stolen share key still has its agent's signature, and whoever found it would open the share.
    """
    for agent in agents:
        if sha256(agent.public_key).digest() in former:
            raise FormerShareKeyError(
                f"The share key of {agent.agent} was removed by an earlier change of agents, and a lost copy "
                "of it would open the new share. Have this agent make a new one: `keyark identities request` "
                "and `install`."
            )


def _agent_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The role is the certificate's word, for nobody else may hold a share."""
    identity, key = identity_of(certificate), certificate.public_key()
    if identity.role != _AGENT_ROLE:
        raise ShareKeyError(f"{identity} is not a recovery agent; give an agent's certificate.")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ShareKeyError(f"The certificate key of {identity} is not P-256; make a new identity.")
    return key


def _no_public_file() -> InvalidInputError:
    return InvalidInputError("This is not the share-key.json of an agent; copy it again.", field="agent")


def _sign(certificate_key: PrivateKey, agent: str, public_key: bytes) -> bytes:
    return cast("ec.EllipticCurvePrivateKey", certificate_key).sign(_signed(agent, public_key), _ECDSA)


def _signed(agent: str, public_key: bytes) -> bytes:
    return context(SHARE_KEY_LABEL, agent.encode(), public_key)
