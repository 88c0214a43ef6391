"""PKCS#12 files (RFC 7292), with which users take keys and certificates into their mail program.

    entries = [KeyEntry(name="alice@example.org signing 2026-11-30", private_key=key, certificate=certificate), ...]
    data = Pkcs12Writer(password).build(entries, chain=chain)

One file may hold several keys. Each has a name of its own and a localKeyID that ties it to its certificate, since
importers replace what has the same name.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from keyark.errors import InvalidInputError
from keyark.keys.key_types import PKCS12_KEY_TYPES, PrivateKey, UnsupportedKeyError, key_type_of
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.pbes import CompatibleProtection, ModernProtection
from keyark.keys.spki import encode_spki
from keyark.x509._pfx import assemble, certificate_bag, key_bag
from keyark.x509.certificates import encode_certificate
from keyark.x509.serials import serial_text

MAX_PASSWORD: Final = 1_023
"""Bytes in UTF-8; OpenSSL and others read no more."""


_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
"""1.2.840.113549.1.5.13, DER (RFC 8018)."""


class Pkcs12Form(enum.Enum):
    """How a PKCS#12 file is encrypted: as is usual today, or for programs without PBES2 (gpgsm 2.2, old Windows)."""

    MODERN = "modern"
    COMPATIBLE = "compatible"


@dataclass(frozen=True, kw_only=True)
class KeyEntry:
    """A private key, its certificate, and the name that programs list it under."""

    name: str
    private_key: PrivateKey = field(repr=False)
    certificate: x509.Certificate

    def check(self) -> None:
        """Raise UnsupportedKeyError for types other than RSA, EC and Ed25519, InvalidInputError for a wrong pair."""
        public_key = self.private_key.public_key()
        key_type = key_type_of(public_key)
        if key_type not in PKCS12_KEY_TYPES:
            raise UnsupportedKeyError(
                f"PKCS#12 files are not written for {key_type.value} keys; save the key as encrypted PEM instead."
            )
        if encode_spki(self.certificate.public_key()) != encode_spki(public_key):
            raise InvalidInputError(
                "The certificate is not the one of this private key.", field="certificate"
            )

    @property
    def local_key_id(self) -> bytes:
        """What ties key and certificate together: the SHA-1 of the certificate, as other programs write it."""
        return self.certificate.fingerprint(hashes.SHA1())  # noqa: S303 — a name, no protection


def entry_name(owner: str, use: str, certificate: x509.Certificate) -> str:
    """Return a name that differs by use, date and certificate: "alice@example.org encryption 2026-11-30 5f3a01c2"."""
    began = certificate.not_valid_before_utc.date().isoformat()
    return f"{owner} {use} {began} {serial_text(certificate.serial_number)[:8]}"


def check_pkcs12_password(password: bytes) -> None:
    """Raise InvalidInputError for what importers cannot take: empty, over 1,023 bytes, no UTF-8, control characters."""
    if not password:
        raise InvalidInputError("A PKCS#12 file needs a password; give one.", field="password")
    if len(password) > MAX_PASSWORD:
        raise InvalidInputError(
            f"A PKCS#12 password has at most {MAX_PASSWORD} bytes; this one has {len(password)}. Give a shorter one.",
            field="password",
        )
    try:
        text = password.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text:
        raise InvalidInputError(
            "A PKCS#12 password must be printable text in UTF-8; give one that people can type.",
            field="password",
        )


class Pkcs12Writer:
    """Writes PKCS#12 files under one password, whose keys are derived once for all of them."""

    def __init__(self, password: bytes, form: Pkcs12Form = Pkcs12Form.MODERN) -> None:
        """MODERN: AES-256-CBC under 600,000 rounds of PBKDF2-HMAC-SHA-256, and a MAC with SHA-256 of as many rounds.

        COMPATIBLE: 3DES and SHA-1, for generated passwords only. Raises the error of ``check_pkcs12_password``.
        """
        check_pkcs12_password(password)
        self._protection = (
            ModernProtection(password) if form is Pkcs12Form.MODERN else CompatibleProtection(password)
        )

    def build(self, entries: Sequence[KeyEntry], *, chain: Sequence[x509.Certificate]) -> bytes:
        """Return a file (DER) with all keys, their certificates, and the chain; raises as ``KeyEntry.check`` does."""
        for entry in entries:
            entry.check()
        keys, certificates = [], []
        for entry in entries:
            key = entry.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            name, local_key_id = entry.name, entry.local_key_id
            keys.append(key_bag(key, self._protection, name=name, local_key_id=local_key_id))
            certificate = encode_certificate(entry.certificate)
            certificates.append(certificate_bag(certificate, name=name, local_key_id=local_key_id))
        above = dict.fromkeys(encode_certificate(certificate) for certificate in chain)
        certificates += [certificate_bag(certificate) for certificate in above]
        return assemble(keys, certificates, self._protection)


def form_of(data: bytes) -> Pkcs12Form:
    """Return the form of a PKCS#12 file: modern where PBES2 encrypts it (the names of algorithms are in the clear)."""
    return Pkcs12Form.MODERN if _PBES2 in data else Pkcs12Form.COMPATIBLE


def open_pkcs12(data: bytes, *, password: bytes) -> PrivateKey:
    """Return the private key of a PKCS#12 file; raises InvalidInputError for a wrong password or what is none."""
    try:
        key, _, _ = pkcs12.load_key_and_certificates(data, password)
    except PARSING_ERRORS:
        raise InvalidInputError(
            "The PKCS#12 file does not open with this password; give the right one.", field="password"
        ) from None
    if key is None:
        raise InvalidInputError("The PKCS#12 file has no private key.", field="format")
    key_type_of(key.public_key())
    return cast("PrivateKey", key)
