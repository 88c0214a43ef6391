"""Keys, authorities, statements and certificates for tests; slow keys are made once per run."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography import x509

from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import build_statement, sign_statement
from keyark.x509.authority import Authority, ca_name, create_internal_ca, create_root, issue_ca, request_ca
from keyark.x509.certificates import Validity
from keyark.x509.end_entity import EndEntityIssuer, IssuedPair
from keyark.x509.end_entity_profile import EndEntityProfile
from keyark.x509.serials import new_serial

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
DAY = 86_400
TRUST_DOMAIN = "example.org"
CALLER = SpiffeId(TRUST_DOMAIN, "client/enroller")
REQUEST_ID = bytes.fromhex("0190163d8694739b aea5966c26f8ad91".replace(" ", ""))

CA_VALIDITY = Validity.starting(NOW, lifetime_seconds=3650 * DAY, backdate_seconds=DAY)
VALIDITY = Validity.starting(NOW, lifetime_seconds=365 * DAY)


_KEYS: dict[tuple[KeyType, int], Any] = {}


def private_key(key_type: KeyType, number: int = 0) -> Any:
    """The same key for the same arguments, for RSA keys take long to make."""
    if (key_type, number) not in _KEYS:
        _KEYS[key_type, number] = generate(key_type)
    return _KEYS[key_type, number]


def spki(key_type: KeyType, number: int = 0) -> bytes:
    """The SPKI (DER) of ``private_key``."""
    return encode_spki(private_key(key_type, number).public_key())


@cache
def root_ca(
    key_type: KeyType = KeyType.EC_P256, name: str = "Root CA", path_length: int | None = 1
) -> Authority:
    """A self-signed CA around NOW."""
    return create_root(
        private_key(key_type, 900), subject=ca_name(name), validity=CA_VALIDITY, path_length=path_length
    )


@cache
def issuing_ca(key_type: KeyType = KeyType.EC_P256) -> Authority:
    """The issuing CA below ``root_ca()``."""
    key, subject = private_key(key_type, 901), ca_name("Issuing CA", "Example")
    request = request_ca(key, subject=subject)
    certificate = issue_ca(root_ca(), request, subject=subject, validity=CA_VALIDITY)
    return Authority(certificate=certificate, private_key=key)


@cache
def internal_ca() -> Authority:
    """The internal CA around NOW."""
    return create_internal_ca(
        private_key(KeyType.EC_P256, 902), subject=ca_name("Internal CA"), validity=CA_VALIDITY
    )


def identity_certificate(
    path: str, *, key: Any = None, authority: Authority | None = None, validity: Validity = VALIDITY
) -> x509.Certificate:
    """The certificate of an identity of the trust domain, for example "rm" or "client/alice"."""
    identity = SpiffeId(TRUST_DOMAIN, path)
    request = request_identity(key or private_key(KeyType.EC_P256, 903), identity)
    return issue_identity(authority or internal_ca(), request, identity=identity, validity=validity)


def statement_bytes(
    *,
    signing: KeyType = KeyType.EC_P256,
    encryption: KeyType = KeyType.EC_P256,
    **fields: Any,
) -> bytes:
    """A serialized statement of Alice; keyword arguments replace its fields."""
    values: dict[str, Any] = {
        "caller": CALLER,
        "request_id": REQUEST_ID,
        "profile": "person",
        "common_name": "Alice Example",
        "email": "alice@example.org",
        "signing_spki": spki(signing),
        "encryption_spki": spki(encryption, 1),
    }
    return build_statement(**(values | fields)).raw


def signed_statement(*, signing: KeyType = KeyType.EC_P256, **fields: Any) -> tuple[bytes, bytes]:
    """A serialized statement and its signature."""
    raw = statement_bytes(signing=signing, **fields)
    return raw, sign_statement(raw, private_key(signing))


def issue_pair(
    authority: Authority, *, profile: EndEntityProfile | None = None, **replaced: Any
) -> IssuedPair:
    """A pair for Alice's keys of ``statement_bytes``; keyword arguments replace what is asked for."""
    issuer = EndEntityIssuer(
        certificate=authority.certificate,
        private_key=authority.private_key,
        profile=profile or EndEntityProfile(),
    )
    asked: dict[str, Any] = {
        "common_name": "Alice Example",
        "email": "alice@example.org",
        "signing_spki": spki(KeyType.EC_P256),
        "encryption_spki": spki(KeyType.EC_P256, 1),
        "signing_serial": new_serial(),
        "encryption_serial": new_serial(),
        "validity": VALIDITY,
    }
    return issuer.issue_pair(**(asked | replaced))
