"""Recovered keys as files: PKCS#12 for mail programs, or PEM; built on the requester's machine and nowhere else."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import load_der_private_key

from keyark.client.folder import PKCS12_KEY_TYPES, KeyFormat
from keyark.client.recovery import RecoveredKey
from keyark.errors import InvalidInputError
from keyark.pki.certificates import encode_pem_certificates
from keyark.pki.files import FileExistsAlreadyError, make_private_folder, write_new_file
from keyark.pki.key_types import PrivateKey, key_type_of
from keyark.pki.keys import encode_private_key, narrow_private_key
from keyark.pki.pkcs12 import build_pkcs12

PASSWORD_BYTES: Final = 15


def new_password() -> bytes:
    """Make a password of 120 random bits, 20 characters."""
    return secrets.token_urlsafe(PASSWORD_BYTES).encode()


@dataclass(frozen=True, kw_only=True)
class KeyFiles:
    """Where recovered keys go: ``out`` is a file for one key, and a folder (0700) of files for several."""

    out: Path
    key_format: KeyFormat
    password: bytes = field(repr=False)

    def check_free(self) -> None:
        """Raise FileExistsAlreadyError where ``out`` exists: no file is ever overwritten with a key."""
        if self.out.exists():
            raise FileExistsAlreadyError(f"{self.out} exists; name another file.")

    def write(self, keys: Sequence[RecoveredKey]) -> list[Path]:
        """Write every key durably (0600) and return the files; nothing is written where one cannot be encoded.

        Raises InvalidInputError where PKCS#12 cannot hold a key, and FileExistsAlreadyError.
        """
        files = [(self._name(key), self._encode(key)) for key in keys]
        if len(files) == 1:
            write_new_file(self.out, files[0][1], mode=0o600)
            return [self.out]
        make_private_folder(self.out)
        for name, data in files:
            write_new_file(self.out / name, data, mode=0o600)
        return [self.out / name for name, _ in files]

    def _name(self, key: RecoveredKey) -> str:
        return f"{key.certificate.serial_number:x}.{self.key_format.value}"

    def _encode(self, key: RecoveredKey) -> bytes:
        private_key = _load(key)
        if self.key_format is KeyFormat.PEM:
            certificates = encode_pem_certificates([key.certificate, *key.chain])
            return encode_private_key(private_key, password=self.password) + certificates
        key_type = key_type_of(private_key.public_key())
        if key_type not in PKCS12_KEY_TYPES:
            raise InvalidInputError(
                f"PKCS#12 does not hold {key_type.value} keys here; use --format pem.", field="format"
            )
        return build_pkcs12(
            name=key.email,
            private_key=private_key,
            certificate=key.certificate,
            chain=key.chain,
            password=self.password,
        )


def _load(key: RecoveredKey) -> PrivateKey:
    """The key proved to match its certificate, so OpenSSL's own lengthy check of RSA keys is left out."""
    return narrow_private_key(
        load_der_private_key(key.private_key, password=None, unsafe_skip_rsa_key_validation=True)
    )
