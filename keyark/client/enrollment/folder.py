"""An enrollment on disk: the keys and the request before it is sent, the certificates after.

A lost answer loses nothing: what was saved is submitted again, and the same request gets the same outcome (P9).

    signing-key.pem encryption-key.pem    the keys, PKCS#8 PEM, encrypted if there is a password
    statement.bin                         the request as it was signed
    signing.pem encryption.pem            the certificates; of encryption, nothing where the profile has none
    chain.pem                             the CA that issued them, and those above it
    receipt.tlog-proof                    the archival receipt
    transport.pem                         the transport certificate that verifies it, whatever the newest one is
    signing.p12 encryption.p12 keys.p12   instead of the keys, where PKCS#12 was chosen; the last holds both
    password.txt                          the password of those, where none was given: give it to the person apart
    .unsent.bin                           the request while its keys are being written; then it becomes statement.bin

The folder is new, empty, or holds an enrollment: nothing of anybody else in it is ever replaced.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

from keyark.client.access.passwords import (
    PasswordSource,
    new_password,
    no_password,
    read_made_password,
)
from keyark.client.enrollment.prepared import PreparedEnrollment
from keyark.client.trust.verification import Enrolled
from keyark.errors import ConfigurationError, InvalidInputError
from keyark.files import (
    erase_secret_file,
    is_there,
    make_private_folder,
    names_in,
    put_new_file,
    read_file,
    read_secret_file,
    write_file,
    write_new_file,
)
from keyark.keys.key_types import PKCS12_KEY_TYPES, KeyType, PrivateKey, narrow_signing_key
from keyark.keys.password_files import read_password
from keyark.keys.private_keys import MAX_KEY_FILE_SIZE, is_encrypted, load_private_key, save_private_key
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import MAX_STATEMENT_SIZE, PresentCertificate, Statement, parse_statement
from keyark.statements.pairs import check_key_of
from keyark.x509.certificates import (
    encode_certificate,
    encode_pem_certificates,
    load_certificate,
    load_certificates,
    save_certificates,
)
from keyark.x509.pkcs12 import (
    KeyEntry,
    Pkcs12Form,
    Pkcs12Writer,
    check_pkcs12_password,
    entry_name,
    form_of,
    open_pkcs12,
)
from keyark.x509.serials import encode_serial

ROLES: Final = ("signing", "encryption")
MAX_PKCS12: Final = 64 * 1024
MAX_PUBLIC: Final = 1 << 20
UNSENT: Final = ".unsent.bin"

_WRITTEN_UNSENT: Final = (UNSENT, "signing-key.pem", "encryption-key.pem", "transport.pem", "password.txt")
"""What a run writes before it sends anything."""


class KeyFormat(enum.Enum):
    """The file format of certified keys."""

    PEM = "pem"
    P12 = "p12"


class OtherRequestError(ConfigurationError):
    """The folder holds the enrollment of somebody else or of other keys."""

    reason = "OTHER_REQUEST"


class FolderTakenError(ConfigurationError):
    """A folder for new keys holds files of something else."""

    reason = "FOLDER_TAKEN"


class OtherFormError(ConfigurationError):
    """The folder keeps its keys in another form than the one that is asked for now."""

    reason = "OTHER_FORM"


@dataclass(frozen=True, kw_only=True)
class EnrollmentFolder:
    """The folder (0700) of one enrollment; ``password`` encrypts the keys in it.

    Without a password, ``ask`` is called for the password of encrypted keys, and PKCS#12 gets a generated
    password that is kept in the folder.
    """

    path: Path
    key_format: KeyFormat = KeyFormat.PEM
    password: bytes | None = field(default=None, repr=False)
    pkcs12_form: Pkcs12Form = Pkcs12Form.MODERN
    ask: PasswordSource = no_password

    def check_key_types(self, *key_types: KeyType | None) -> None:
        """Raise InvalidInputError if PKCS#12 was chosen but cannot hold keys of these types, or the password."""
        if self.key_format is not KeyFormat.P12:
            return
        if self.password is not None:
            check_pkcs12_password(self.password)
        for key_type in key_types:
            if key_type is not None and key_type not in PKCS12_KEY_TYPES:
                raise InvalidInputError(
                    f"keyark cannot write {key_type.value} keys as PKCS#12; use --format pem.", field="format"
                )

    def saved_statement(self) -> Statement | None:
        """Return the request in the folder, or None if there is none yet."""
        path = self.path / "statement.bin"
        return parse_statement(read_file(path, max_size=MAX_STATEMENT_SIZE)) if is_there(path) else None

    def is_finished(self) -> bool:
        """Whether the outcome lies in the folder; it is written last."""
        return is_there(self.path / "chain.pem")

    def make_usable(self) -> None:
        """Forget what an interrupted ``save`` left, which was never sent.

        Raises FolderTakenError where the folder holds anything else, but no request.
        """
        names = names_in(self.path) if is_there(self.path) else set()
        if "statement.bin" in names:
            return
        unsent = (
            parse_statement(read_file(self._unsent, max_size=MAX_STATEMENT_SIZE)) if UNSENT in names else None
        )
        written = _WRITTEN_UNSENT if unsent else ()
        others = sorted(name for name in names if name not in written and not _is_passing(name))
        if others:
            raise FolderTakenError(
                f"{self.path} has a file {others[0]} that does not belong to this enrollment; choose a "
                "new folder."
            )
        if unsent is not None:
            self._forget_unsent(unsent)

    def _forget_unsent(self, unsent: Statement) -> None:
        """Erase the keys of a request that was never sent.

        Raises FolderTakenError where other keys lie there, and PasswordFileError for another password.
        """
        spkis = {"signing": unsent.signing_spki, "encryption": unsent.encryption_spki}
        there = [role for role in ROLES if is_there(self._key_path(role))]
        for role in there:
            if encode_spki(self._load_key(role).public_key()) != spkis[role]:
                raise FolderTakenError(
                    f"{self._key_path(role)} is a key that does not belong to this enrollment; choose a new "
                    "folder."
                )
        if is_there(self._password_path):
            read_made_password(self._password_path)
        for role in there:
            erase_secret_file(self._key_path(role))
        for name in ("transport.pem", "password.txt", UNSENT):
            erase_secret_file(self.path / name)

    def save(self, prepared: PreparedEnrollment) -> None:
        """Write keys and request, durably, before the request is sent.

        Raises OtherRequestError where the folder holds a request, and FolderTakenError where it holds anything else.
        """
        self.make_usable()
        make_private_folder(self.path)
        if is_there(self.path / "statement.bin"):
            raise OtherRequestError(f"{self.path} already has a request; choose another folder.")
        write_new_file(self._unsent, prepared.statement.raw, mode=0o600)
        password = self._password_of_new_keys()
        save_private_key(self._key_path("signing"), prepared.signing_key, password=password)
        if prepared.encryption_key is not None:
            save_private_key(self._key_path("encryption"), prepared.encryption_key, password=password)
        self._save_transport(prepared.transport_certificate)
        put_new_file(self._unsent, self.path / "statement.bin")

    def load(self) -> PreparedEnrollment | None:
        """Return the saved request with its keys, or None; raises the errors of ``load_private_key``."""
        statement = self.saved_statement()
        if statement is None:
            return None
        return PreparedEnrollment.of(
            statement,
            signing_key=narrow_signing_key(self._load_key("signing")),
            encryption_key=self._load_key("encryption") if statement.encryption_spki else None,
            transport_certificate=self._saved_transport(),
        )

    def finish(self, prepared: PreparedEnrollment, enrolled: Enrolled) -> None:
        """Write the outcome, once the keys on disk are those of the certificates; with PKCS#12 they give way to it.

        Raises CertificateMismatchError where other keys lie in the folder.
        """
        certified: dict[str, tuple[PrivateKey, x509.Certificate]] = {
            "signing": (prepared.signing_key, enrolled.signing_certificate)
        }
        if prepared.encryption_key is not None:
            certified["encryption"] = (prepared.encryption_key, enrolled.encryption_certificate)
        for role, (_, certificate) in certified.items():
            check_key_of(self._load_key(role), certificate, place=self._key_path(role))
        entries = {
            role: KeyEntry(
                name=entry_name(enrolled.statement.email, role, certificate),
                private_key=key,
                certificate=certificate,
            )
            for role, (key, certificate) in certified.items()
        }
        if self.key_format is KeyFormat.P12:
            self._write_pkcs12(entries, enrolled)
        if enrolled.receipt_file:
            self._save_transport(enrolled.transport_certificate)
            write_file(self.path / "receipt.tlog-proof", enrolled.receipt_file, mode=0o644)
        for role, entry in entries.items():
            self._write_public(f"{role}.pem", encode_pem_certificates([entry.certificate]))
        self._write_public("chain.pem", encode_pem_certificates(enrolled.chain))
        if self.key_format is KeyFormat.P12:
            for role in entries:
                erase_secret_file(self._key_path(role))

    def _write_public(self, name: str, data: bytes) -> None:
        """Write a file, or find it as an interrupted ``finish`` wrote it; raises FolderTakenError for another."""
        path = self.path / name
        if not is_there(path):
            write_new_file(path, data, mode=0o644)
        elif read_file(path, max_size=MAX_PUBLIC) != data:
            raise FolderTakenError(
                f"{path} does not belong to this enrollment; move it away and run the command again."
            )

    def check_form(self) -> None:
        """Raise OtherFormError where keys are kept in another form than is asked for, and none can become of it."""
        kept_pkcs12, key = self.path / "signing.p12", self._key_path("signing")
        kept = asked = ""
        if is_there(kept_pkcs12):
            form = form_of(read_file(kept_pkcs12, max_size=MAX_PKCS12))
            kept = f"PKCS#12 in the {form.value} form"
            asked = kept if (self.key_format, self.pkcs12_form) == (KeyFormat.P12, form) else ""
        elif is_there(key) and (self.key_format is KeyFormat.PEM or self.is_finished()):
            encrypted = is_encrypted(read_secret_file(key, max_size=MAX_KEY_FILE_SIZE))
            with_own = encrypted and self.password is None and is_there(self._password_path)
            kept = f"PEM {'with' if encrypted else 'without'} a password"
            fits = not with_own if encrypted else self.password is None
            asked = kept if self.key_format is KeyFormat.PEM and fits else ""
        if kept != asked:
            raise OtherFormError(
                f"{self.path} has the keys as {kept}. Use the same options as the first time, or choose "
                "another folder."
            )

    def certificates_by_role(self) -> dict[str, x509.Certificate]:
        """Return the certificates of a finished enrollment, signing first, and alone where there is no other."""
        paths = {role: self.path / f"{role}.pem" for role in ROLES}
        return {role: load_certificates(path)[0] for role, path in paths.items() if is_there(path)}

    def certificates(self) -> list[x509.Certificate]:
        """As ``certificates_by_role``, without the roles."""
        return list(self.certificates_by_role().values())

    def present(self) -> PresentCertificate:
        """Return what a finished enrollment is renewed by: its signing certificate's serial number, and the key.

        Raises ConfigurationError where the folder holds no outcome, or a password lacks or is wrong.
        """
        if not self.is_finished():
            raise ConfigurationError(f"{self.path} has no certificates yet; complete that enrollment first.")
        return PresentCertificate(
            serial=encode_serial(self.certificates()[0].serial_number),
            private_key=narrow_signing_key(self._kept_key("signing")),
        )

    def check_kept_keys(self) -> None:
        """Raise CertificateMismatchError where a finished folder holds other keys than those of its certificates."""
        for role, certificate in self.certificates_by_role().items():
            check_key_of(self._kept_key(role), certificate, place=self.path)

    def _kept_key(self, role: str) -> PrivateKey:
        """A key, from its PEM file or from the PKCS#12 that took its place."""
        if is_there(self._key_path(role)):
            return self._load_key(role)
        path = self.path / f"{role}.p12"
        return open_pkcs12(read_file(path, max_size=MAX_PKCS12), password=self._secret(path))

    def _save_transport(self, certificate: bytes) -> None:
        if certificate:
            save_certificates(self.path / "transport.pem", [load_certificate(certificate)])

    def _saved_transport(self) -> bytes:
        path = self.path / "transport.pem"
        return encode_certificate(load_certificates(path)[0]) if is_there(path) else b""

    def _key_path(self, role: str) -> Path:
        return self.path / f"{role}-key.pem"

    def _load_key(self, role: str) -> PrivateKey:
        path = self._key_path(role)
        return load_private_key(path, ask_password=lambda: self._secret(path))

    def _password_of_new_keys(self) -> bytes | None:
        """The password that was given, or for PKCS#12 one that lies in the folder before it encrypts anything."""
        if self.password is not None or self.key_format is not KeyFormat.P12:
            return self.password
        if not is_there(self._password_path):
            write_new_file(self._password_path, new_password() + b"\n", mode=0o600)
        return read_made_password(self._password_path)

    @property
    def _unsent(self) -> Path:
        return self.path / UNSENT

    @property
    def _password_path(self) -> Path:
        return self.path / "password.txt"

    def _secret(self, path: Path) -> bytes:
        """The password of a file that is encrypted."""
        if self.password is not None:
            return self.password
        if is_there(self._password_path):
            return read_password(self._password_path)
        answer = self.ask(path)
        if answer is None:
            raise ConfigurationError(f"{path} is encrypted; name its --password-file.")
        return answer

    def _write_pkcs12(self, entries: Mapping[str, KeyEntry], enrolled: Enrolled) -> None:
        """Write a file for each key, and one with both; raises FolderTakenError where another is there."""
        password = self._password_of_new_keys()
        writer = Pkcs12Writer(password or b"", self.pkcs12_form)
        files = {role: [entry] for role, entry in entries.items()} | {"keys": list(entries.values())}
        for name, held in files.items():
            self._check_own_pkcs12(self.path / f"{name}.p12", held, password or b"")
        for name, held in files.items():
            data = writer.build(held, chain=enrolled.chain)
            write_file(self.path / f"{name}.p12", data, mode=0o600)

    def _check_own_pkcs12(self, path: Path, held: Sequence[KeyEntry], password: bytes) -> None:
        """Raise FolderTakenError for a file that an interrupted ``finish`` did not write."""
        if not is_there(path):
            return
        try:
            key = open_pkcs12(read_file(path, max_size=MAX_PKCS12), password=password)
        except InvalidInputError:
            key = None
        own = {encode_spki(entry.private_key.public_key()) for entry in held}
        if key is None or encode_spki(key.public_key()) not in own:
            raise FolderTakenError(
                f"{path} does not belong to this enrollment; move it away and run the command again."
            )


def _is_passing(name: str) -> bool:
    """Whether a name is the lock, or a file of this folder that was never completed (``.NAME.RANDOM``)."""
    written = name.removeprefix(".").rpartition(".")[0]
    return name == ".lock" or (name.startswith(".") and written in (*_WRITTEN_UNSENT, "statement.bin"))
