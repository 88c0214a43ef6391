"""Who we are and who calls: one SPIFFE ID per certificate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyark.errors import KeyarkError, UnauthenticatedError
from keyark.identity.certificates import identity_of
from keyark.identity.files import IdentityFiles
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import SigningPrivateKey, narrow_signing_key
from keyark.keys.private_keys import encode_private_key, narrow_private_key
from keyark.x509.certificates import (
    Validity,
    encode_pem_certificates,
    load_certificates,
    load_pem_certificates,
)

TLS_VERSION: Final = b"TLSv1.3"
_REMEMBERED: Final = 1024

AuthContext = Mapping[str, Iterable[bytes]]


@dataclass(frozen=True, kw_only=True)
class LocalIdentity:
    """Our own key, certificate and trust anchor, PEM as gRPC takes them."""

    spiffe_id: SpiffeId
    private_key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    trust_anchor: bytes = field(repr=False)

    @classmethod
    def load(
        cls,
        *,
        key: Path,
        certificate: Path,
        trust_anchor: Path,
        password: Callable[[], bytes | None] | None = None,
    ) -> LocalIdentity:
        """Load an identity's files; ``password`` is asked only if the key is encrypted.

        Raises LaxPermissionsError, PasswordRequiredError and the like, and ConfigurationError where key and
        certificate do not belong together.
        """
        files = IdentityFiles(key=key, certificate=certificate)
        private_key, chain = files.load(ask_password=None if password is None else lambda: password() or b"")
        return cls(
            spiffe_id=identity_of(chain[0]),
            private_key=encode_private_key(private_key),
            certificate=encode_pem_certificates(chain),
            trust_anchor=encode_pem_certificates(load_certificates(trust_anchor)),
        )

    @cached_property
    def leaf(self) -> x509.Certificate:
        """The identity's own certificate."""
        return load_pem_certificates(self.certificate)[0]

    @cached_property
    def signing_key(self) -> SigningPrivateKey:
        """The private key of that certificate, to sign messages with."""
        return narrow_signing_key(narrow_private_key(load_pem_private_key(self.private_key, None)))


@dataclass(frozen=True)
class Peer:
    """A caller whose certificate mutual TLS verified, and how long that is valid (seconds UTC)."""

    identity: SpiffeId
    validity: Validity
    certificate: x509.Certificate


class PeerReader:
    """Reads the caller from a call's authentication context, remembering certificates that it parsed."""

    def __init__(self, now: Callable[[], int], revoked: RevokedIdentities) -> None:
        self._now, self._revoked = now, revoked
        self._remembered: OrderedDict[bytes, Peer] = OrderedDict()

    def identity(self, auth_context: AuthContext) -> SpiffeId:
        """Return who calls, once ``read`` and ``check`` find nothing wrong."""
        peer = self.read(auth_context)
        self.check(peer)
        return peer.identity

    def read(self, auth_context: AuthContext) -> Peer:
        """Return whose certificate this connection shows; raises UnauthenticatedError.

        The connection must be TLS 1.3, and the certificate must carry exactly one SPIFFE ID.
        """
        if list(auth_context.get("ssl_tls_version", ())) != [TLS_VERSION]:
            raise UnauthenticatedError("The connection does not use TLS 1.3; use a client that does.")
        certificates = list(auth_context.get("x509_pem_cert", ()))
        named = list(auth_context.get("peer_spiffe_id", ()))
        if len(named) != 1 or len(certificates) != 1:
            raise UnauthenticatedError(
                "The certificate does not name exactly one identity; use a certificate of this deployment."
            )
        peer = self._peer(certificates[0])
        if str(peer.identity).encode() != named[0]:
            raise UnauthenticatedError(
                "The certificate does not name exactly one identity; use a certificate of this deployment."
            )
        return peer

    def check(self, peer: Peer) -> None:
        """Raise unless the certificate is in force now, for a connection or TLS session can outlive that.

        Raises UnauthenticatedError for one that is expired, and IdentityRevokedError.
        """
        now = self._now()
        if now > peer.validity.not_after:
            raise UnauthenticatedError("The caller's certificate has expired; renew it.")
        if now < peer.validity.not_before:
            raise UnauthenticatedError(
                "The caller's certificate is not yet valid by this service's clock; correct the wrong clock."
            )
        self._revoked.check(peer.certificate)

    def _peer(self, pem: bytes) -> Peer:
        if pem in self._remembered:
            self._remembered.move_to_end(pem)
            return self._remembered[pem]
        try:
            certificate = load_pem_certificates(pem)[0]
            peer = Peer(identity_of(certificate), Validity.of(certificate), certificate)
        except KeyarkError:
            raise UnauthenticatedError(
                "The caller's certificate does not belong to this deployment."
            ) from None
        self._remembered[pem] = peer
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return peer
