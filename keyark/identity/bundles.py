"""The bundle of a deployment: addresses, trust anchors, log and transport keys, signed by the internal CA.

``deployment.toml`` is TOML whose last line is the signature over all lines before it. It is public. Whoever makes a
home compares the fingerprint of the internal CA's key with the one that the operator told; a home takes later bundles
under that key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, ValidationError

from keyark.config import Addresses, Config
from keyark.contexts import context
from keyark.errors import KeyarkError, Kind
from keyark.identity.certificates import check_issuer, fingerprint, identity_of
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import TRANSPORT_ROLE, SpiffeId
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.signatures import verify_message
from keyark.x509.certificates import load_pem_certificates

BUNDLE: Final = "deployment.toml"
LABEL: Final = "keyark/deployment/v1"
MAX_BUNDLE: Final = 1 << 20
SIGNATURE: Final = '\nsignature = "'
"""What the last line begins with, and the end of the line before it."""


class BundleError(KeyarkError):
    """A deployment's bundle is malformed, or not signed by the internal CA that is believed."""

    reason = "DEPLOYMENT_BUNDLE"
    kind = Kind.PRECONDITION


class OlderBundleError(BundleError):
    """A bundle is older than the one that a home was made of."""

    reason = "OLDER_DEPLOYMENT_BUNDLE"


class BundleContent(Config):
    """What a bundle says; certificates, keys and the list of revoked identities are PEM."""

    version: Literal[1]
    number: Annotated[int, Field(ge=0, lt=1 << 63)]
    trust_domain: str
    rm: Addresses
    cm: Addresses
    drm: Addresses
    trust_anchor: str
    ca: str
    transport: str
    rm_log_key: str
    cm_log_key: str
    revoked_identities: str = ""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle as it was read; nothing of it counts before ``verify``."""

    data: bytes = field(repr=False)
    content: BundleContent
    anchors: tuple[x509.Certificate, ...]
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Read a bundle; raises BundleError for what is none."""
        try:
            body, found, rest = data.decode().rpartition(SIGNATURE)
            encoded = rest.removesuffix('"\n')
            if len(data) > MAX_BUNDLE or not found or encoded == rest:
                raise ValueError("no signature")
            signature = base64.b64decode(encoded, validate=True)
            content = BundleContent.model_validate(tomllib.loads(body))
        except (ValueError, binascii.Error, ValidationError, RecursionError):
            raise BundleError("This is not the bundle of a deployment; fetch it again.") from None
        anchors = tuple(load_pem_certificates(content.trust_anchor.encode()))
        return cls(data=data, content=content, anchors=anchors, signature=signature)

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprint of each internal CA in it; the first is for people to compare."""
        return [fingerprint(anchor) for anchor in self.anchors]

    def verify(self, believed: Collection[str]) -> None:
        """Raise BundleError unless an internal CA with one of these fingerprints signed it and what it says fits."""
        _verify_signature(self, believed)
        self._check_content()

    def _check_content(self) -> None:
        transport = load_pem_certificates(self.content.transport.encode())
        expected = SpiffeId(self.content.trust_domain, TRANSPORT_ROLE)
        for certificate in transport:
            check_issuer(certificate, self.anchors)
            if identity_of(certificate) != expected:
                raise BundleError(f"The bundle's transport certificate is not that of {expected}.")
        load_pem_certificates(self.content.ca.encode())
        for text in (self.content.rm_log_key, self.content.cm_log_key):
            _check_log_key(text)
        if self.content.revoked_identities:
            RevokedIdentities(self.anchors).newer(self.content.revoked_identities.encode())


def _verify_signature(bundle: Bundle, believed: Collection[str]) -> None:
    """Raise BundleError unless the key of an internal CA with one of these fingerprints signed the bundle."""
    signed = context(LABEL, bundle.data[: bundle.data.rindex(SIGNATURE.encode())])
    for anchor in bundle.anchors:
        key = anchor.public_key()
        if fingerprint(anchor) in believed and isinstance(key, ec.EllipticCurvePublicKey):
            with contextlib.suppress(InvalidSignature):
                verify_message(key, bundle.signature, signed)
                return
    raise BundleError(
        "The bundle is not signed by the internal CA with that fingerprint; ask the operator for both."
    )


def _check_log_key(text: str) -> None:
    try:
        load_pem_public_key(text.encode())
    except PARSING_ERRORS:
        raise BundleError("The bundle lacks the key of a log; ask the operator for another bundle.") from None
