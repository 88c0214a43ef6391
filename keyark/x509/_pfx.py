"""Writes PFX structures (RFC 7292): the encrypted bags, and the MAC over them, under one password.

``cryptography`` writes one key a file, one name for everything, and a MAC of 2,048 rounds whatever the rounds of the
bags are. A file is as weak as its weakest part, so the structure is written here; ciphers and hashes are the library's.
"""

from __future__ import annotations

import hmac
from typing import Final

from keyark.keys.der import (
    NULL,
    explicit,
    object_identifier,
    octet_string,
    sequence,
    set_of,
    small_integer,
    tlv,
)
from keyark.keys.pbes import Protection

_DATA: Final = object_identifier("1.2.840.113549.1.7.1")
_ENCRYPTED_DATA: Final = object_identifier("1.2.840.113549.1.7.6")
_KEY_BAG: Final = object_identifier("1.2.840.113549.1.12.10.1.2")  # pkcs8ShroudedKeyBag
_CERTIFICATE_BAG: Final = object_identifier("1.2.840.113549.1.12.10.1.3")
_X509: Final = object_identifier("1.2.840.113549.1.9.22.1")
_FRIENDLY_NAME: Final = object_identifier("1.2.840.113549.1.9.20")
_LOCAL_KEY_ID: Final = object_identifier("1.2.840.113549.1.9.21")
_HASHES: Final = {
    "sha256": object_identifier("2.16.840.1.101.3.4.2.1"),
    "sha1": object_identifier("1.3.14.3.2.26"),
}


def key_bag(private_key: bytes, protection: Protection, *, name: str, local_key_id: bytes) -> bytes:
    """Return a SafeBag (DER) of an encrypted private key (PKCS#8 DER) with its two attributes."""
    algorithm, ciphertext = protection.encrypt(private_key)
    content = explicit(0, sequence(algorithm, octet_string(ciphertext)))
    return sequence(_KEY_BAG, content, _attributes(name, local_key_id))


def certificate_bag(certificate: bytes, *, name: str = "", local_key_id: bytes = b"") -> bytes:
    """Return a SafeBag (DER) of a certificate (DER); that of a CA has no attributes."""
    content = explicit(0, sequence(_X509, explicit(0, octet_string(certificate))))
    attributes = [_attributes(name, local_key_id)] if name else []
    return sequence(_CERTIFICATE_BAG, content, *attributes)


def assemble(key_bags: list[bytes], certificate_bags: list[bytes], protection: Protection) -> bytes:
    """Return the PFX (DER): certificates in one encrypted content, keys in another, and the MAC over both."""
    algorithm, ciphertext = protection.encrypt(sequence(*certificate_bags))
    encrypted = sequence(_DATA, algorithm, tlv(0x80, ciphertext))
    certificates = sequence(_ENCRYPTED_DATA, explicit(0, sequence(small_integer(0), encrypted)))
    content = sequence(certificates, _data(sequence(*key_bags)))
    digest = sequence(
        sequence(_HASHES[protection.mac_hash], NULL),
        octet_string(hmac.digest(protection.mac_key, content, protection.mac_hash)),
    )
    mac = sequence(digest, octet_string(protection.mac_salt), small_integer(protection.rounds))
    return sequence(small_integer(3), _data(content), mac)


def _attributes(name: str, local_key_id: bytes) -> bytes:
    friendly = sequence(_FRIENDLY_NAME, set_of(tlv(0x1E, name.encode("utf-16-be"))))
    return set_of(friendly, sequence(_LOCAL_KEY_ID, set_of(octet_string(local_key_id))))


def _data(content: bytes) -> bytes:
    return sequence(_DATA, explicit(0, octet_string(content)))
