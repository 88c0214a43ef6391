"""Certificates that no keyark issues, made with cryptography alone: what a careless CA operator could sign."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import encode_private_key
from keyark.rpc.identities import LocalIdentity
from keyark.x509.certificates import encode_pem_certificates
from tests.support.keys.pki import TRUST_DOMAIN, private_key
from tests.support.running.rpc import current_ca

HOUR = datetime.timedelta(hours=1)


def unusual_identity(*, uris: Sequence[str] = (), dns: Sequence[str] = ()) -> LocalIdentity:
    """An identity whose certificate the internal CA signed, with any subject alternative names."""
    key, authority = private_key(KeyType.EC_P256, 905), current_ca()
    now = datetime.datetime.now(datetime.UTC)
    names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "unusual")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(authority.private_key, hashes.SHA256())
    return LocalIdentity(
        spiffe_id=SpiffeId(TRUST_DOMAIN, "drm"),
        private_key=encode_private_key(key),
        certificate=encode_pem_certificates([certificate]),
        trust_anchor=encode_pem_certificates([authority.certificate]),
    )
