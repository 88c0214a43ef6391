"""Recovered keys as files: PKCS#12 for mail programs, or PEM; built on the requester's machine and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_der_private_key

from keyark.client.enrollment.folder import KeyFormat
from keyark.client.recovery.recipients import RecoveredKey
from keyark.errors import InvalidInputError
from keyark.files import FileExistsAlreadyError, erase_secret_file, make_private_folder, write_new_file
from keyark.keys.key_types import PKCS12_KEY_TYPES, PrivateKey, key_type_of
from keyark.keys.private_keys import encode_private_key, narrow_private_key
from keyark.x509.certificates import encode_pem_certificates
from keyark.x509.pkcs12 import KeyEntry, Pkcs12Form, Pkcs12Writer, entry_name
from keyark.x509.serials import serial_text


@dataclass(frozen=True, kw_only=True)
class KeyFiles:
    """Where recovered keys are written: ``out`` is a file, or for several keys in PEM a folder (0700) of files."""

    out: Path
    key_format: KeyFormat
    password: bytes = field(repr=False)
    pkcs12_form: Pkcs12Form = Pkcs12Form.MODERN

    def check_free(self) -> None:
        """Raise FileExistsAlreadyError if ``out`` exists, since no file is ever overwritten with a key."""
        if self.out.exists():
            raise FileExistsAlreadyError(f"{self.out} exists; name another file.")

    def write(self, keys: Sequence[RecoveredKey]) -> list[Path]:
        """Write the keys durably (0600) and return their files; if one key cannot be encoded, write nothing.

        PKCS#12 holds a whole history in one file, the current key first. Raises InvalidInputError if it cannot
        hold a key, and FileExistsAlreadyError.
        """
        if self.key_format is KeyFormat.P12:
            write_new_file(self.out, self._pkcs12(keys), mode=0o600)
            return [self.out for _ in keys]
        if len(keys) == 1:
            write_new_file(self.out, self._pem(keys[0]), mode=0o600)
            return [self.out]
        make_private_folder(self.out)
        paths = [self.out / f"{serial_text(key.certificate.serial_number)}.pem" for key in keys]
        for path, key in zip(paths, keys, strict=True):
            write_new_file(path, self._pem(key), mode=0o600)
        return paths

    def remove(self) -> None:
        """Delete the files, if nobody knows their password."""
        files = list(self.out.iterdir()) if self.out.is_dir() else [self.out]
        for file in files:
            erase_secret_file(file)
        if self.out.is_dir():
            self.out.rmdir()

    def _pem(self, key: RecoveredKey) -> bytes:
        certificates = encode_pem_certificates([key.certificate, *key.chain])
        return encode_private_key(_load(key), password=self.password) + certificates

    def _pkcs12(self, keys: Sequence[RecoveredKey]) -> bytes:
        newest_first = sorted(keys, key=_began, reverse=True)
        for key in newest_first:
            key_type = key_type_of(key.certificate.public_key())
            if key_type not in PKCS12_KEY_TYPES:
                raise InvalidInputError(
                    f"keyark cannot write {key_type.value} keys as PKCS#12; use --format pem.", field="format"
                )
        entries = [
            KeyEntry(
                name=entry_name(key.email, "encryption", key.certificate),
                private_key=_load(key),
                certificate=key.certificate,
            )
            for key in newest_first
        ]
        chain = [certificate for key in newest_first for certificate in key.chain]
        return Pkcs12Writer(self.password, self.pkcs12_form).build(entries, chain=chain)


def _load(key: RecoveredKey) -> PrivateKey:
    """The key proved to match its certificate, so OpenSSL's own lengthy check of RSA keys is left out."""
    return narrow_private_key(
        load_der_private_key(key.private_key, password=None, unsafe_skip_rsa_key_validation=True)
    )


def _began(key: RecoveredKey) -> tuple[datetime, int]:
    """When a key came into use: certificates count seconds, so the order of archival decides within one."""
    return key.certificate.not_valid_before_utc, key.archive_index
