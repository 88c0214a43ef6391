"""An enrollment on disk: the keys and the request before it is sent, the certificates after.

A lost answer loses nothing: what was saved is submitted again, and the same request gets the same outcome (P9).

    signing-key.pem encryption-key.pem    the keys, PKCS#8 PEM, encrypted if there is a password
    statement.bin                         the request as it was signed
    signing.pem encryption.pem            the certificates; of encryption, nothing where the profile has none
    chain.pem                             the CA that issued them, and those above it
    receipt.tlog-proof                    the archival receipt
    transport.pem                         the transport certificate that verifies it, whatever the newest one is
    signing.p12 encryption.p12            instead of the keys, where PKCS#12 was chosen
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

from keyark.client.enrollment import PreparedEnrollment
from keyark.client.verification import Enrolled
from keyark.errors import ConfigurationError, InvalidInputError
from keyark.pki.certificates import (
    encode_certificate,
    encode_pem_certificates,
    load_certificate,
    load_certificates,
    load_pem_certificates,
    save_certificates,
)
from keyark.pki.files import erase_secret_file, make_private_folder, read_file, write_file, write_new_file
from keyark.pki.key_types import RSA_KEY_TYPES, KeyType, PrivateKey, narrow_signing_key
from keyark.pki.keys import load_private_key, save_private_key
from keyark.pki.pkcs12 import build_pkcs12, open_pkcs12
from keyark.pki.serials import encode_serial
from keyark.pki.statements import MAX_STATEMENT_SIZE, PresentCertificate, Statement, parse_statement

ROLES: Final = ("signing", "encryption")
MAX_PKCS12: Final = 64 * 1024
PKCS12_KEY_TYPES: Final = (
    *RSA_KEY_TYPES,
    KeyType.EC_P256,
    KeyType.EC_P384,
    KeyType.EC_P521,
    KeyType.ED25519,
)


class KeyFormat(enum.Enum):
    """How keys are kept once they are certified."""

    PEM = "pem"
    P12 = "p12"


class OtherRequestError(ConfigurationError):
    """The folder holds the enrollment of somebody else or of other keys."""

    reason = "OTHER_REQUEST"


@dataclass(frozen=True, kw_only=True)
class EnrollmentFolder:
    """The folder (0700) of one enrollment; ``password`` encrypts the keys in it."""

    path: Path
    key_format: KeyFormat = KeyFormat.PEM
    password: bytes | None = field(default=None, repr=False)

    def check_key_types(self, *key_types: KeyType | None) -> None:
        """Raise InvalidInputError where PKCS#12 was chosen and cannot hold a key of these types."""
        if self.key_format is not KeyFormat.P12:
            return
        if not self.password:
            raise InvalidInputError(
                "PKCS#12 files need a password; name a file with --password-file.", field="format"
            )
        for key_type in key_types:
            if key_type is not None and key_type not in PKCS12_KEY_TYPES:
                raise InvalidInputError(
                    f"PKCS#12 does not hold {key_type.value} keys here; use --format pem.", field="format"
                )

    def saved_statement(self) -> Statement | None:
        """Return the request that lies in the folder, or None where there is none yet."""
        path = self.path / "statement.bin"
        return parse_statement(read_file(path, max_size=MAX_STATEMENT_SIZE)) if path.exists() else None

    def is_finished(self) -> bool:
        """Whether the outcome lies in the folder; it is written last."""
        return (self.path / "chain.pem").exists()

    def save(self, prepared: PreparedEnrollment) -> None:
        """Write keys and request, durably, before the request is sent; raises where the folder is in use."""
        make_private_folder(self.path)
        self._save_key("signing", prepared.signing_key)
        if prepared.encryption_key is not None:
            self._save_key("encryption", prepared.encryption_key)
        self._save_transport(prepared.transport_certificate)
        write_new_file(self.path / "statement.bin", prepared.statement.raw, mode=0o600)

    def load(self) -> PreparedEnrollment | None:
        """Return the saved request with its keys, or None; raises the errors of ``load_private_key``."""
        statement = self.saved_statement()
        if statement is None:
            return None
        return PreparedEnrollment.restore(
            statement.raw,
            signing_key=narrow_signing_key(self._load_key("signing")),
            encryption_key=self._load_key("encryption") if statement.encryption_spki else None,
            transport_certificate=self._saved_transport(),
        )

    def finish(self, prepared: PreparedEnrollment, enrolled: Enrolled) -> None:
        """Write the outcome; with PKCS#12 the key files give way to it."""
        certified: dict[str, tuple[PrivateKey, x509.Certificate]] = {
            "signing": (prepared.signing_key, enrolled.signing_certificate)
        }
        if prepared.encryption_key is not None:
            certified["encryption"] = (prepared.encryption_key, enrolled.encryption_certificate)
        if self.key_format is KeyFormat.P12:
            for role, (key, certificate) in certified.items():
                self._write_pkcs12(role, key, certificate, enrolled)
        if enrolled.receipt_file:
            self._save_transport(enrolled.transport_certificate)
            write_file(self.path / "receipt.tlog-proof", enrolled.receipt_file, mode=0o644)
        for role, (_, certificate) in certified.items():
            write_file(self.path / f"{role}.pem", encode_pem_certificates([certificate]), mode=0o644)
        write_file(self.path / "chain.pem", encode_pem_certificates(enrolled.chain), mode=0o644)
        if self.key_format is KeyFormat.P12:
            for role in ROLES:
                erase_secret_file(self._key_path(role))

    def certificates(self) -> list[x509.Certificate]:
        """Return the certificates of a finished enrollment, signing first, and alone where there is no other."""
        paths = [self.path / f"{role}.pem" for role in ROLES]
        return [load_pem_certificates(path.read_bytes())[0] for path in paths if path.exists()]

    def present(self) -> PresentCertificate:
        """Return what a finished enrollment is renewed by: its signing certificate's serial number, and the key.

        Raises ConfigurationError where the folder holds no outcome, or a password lacks or is wrong.
        """
        if not self.is_finished():
            raise ConfigurationError(f"{self.path} holds no certificates yet; finish that enrollment first.")
        return PresentCertificate(
            serial=encode_serial(self.certificates()[0].serial_number),
            private_key=narrow_signing_key(self._signing_key()),
        )

    def _signing_key(self) -> PrivateKey:
        """The signing key, from its PEM file or from the PKCS#12 that took its place."""
        if self._key_path("signing").exists():
            return self._load_key("signing")
        return open_pkcs12(read_file(self.path / "signing.p12", max_size=MAX_PKCS12), password=self._ask())

    def _save_transport(self, certificate: bytes) -> None:
        if certificate:
            save_certificates(self.path / "transport.pem", [load_certificate(certificate)])

    def _saved_transport(self) -> bytes:
        path = self.path / "transport.pem"
        return encode_certificate(load_certificates(path)[0]) if path.exists() else b""

    def _key_path(self, role: str) -> Path:
        return self.path / f"{role}-key.pem"

    def _save_key(self, role: str, key: PrivateKey) -> None:
        """Write a key; one that a crash left without its request was never sent and is replaced."""
        erase_secret_file(self._key_path(role))
        save_private_key(self._key_path(role), key, password=self.password)

    def _load_key(self, role: str) -> PrivateKey:
        return load_private_key(self._key_path(role), ask_password=self._ask)

    def _ask(self) -> bytes:
        if self.password is None:
            raise ConfigurationError(f"The keys in {self.path} are encrypted; name their --password-file.")
        return self.password

    def _write_pkcs12(
        self, role: str, key: PrivateKey, certificate: x509.Certificate, enrolled: Enrolled
    ) -> None:
        if self.password is None:
            raise ConfigurationError("PKCS#12 files need a password; name a file with --password-file.")
        data = build_pkcs12(
            name=enrolled.statement.email,
            private_key=key,
            certificate=certificate,
            chain=enrolled.chain,
            password=self.password,
        )
        write_file(self.path / f"{role}.p12", data, mode=0o600)
