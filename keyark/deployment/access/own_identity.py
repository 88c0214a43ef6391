"""An identity made on its owner's machine: key and request first, then the certificate that the authority issued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from keyark.deployment.access.agents import SHARE_KEY, make_share_key, sign_share_key_again
from keyark.errors import ConfigurationError
from keyark.files import PUBLIC, make_private_folder, read_file, write_file
from keyark.identity.certificates import (
    asked_identity,
    check_issuer,
    encode_request,
    identity_of,
    request_identity,
)
from keyark.identity.files import IdentityFiles
from keyark.identity.spiffe import SERVICE_ROLES, TRANSPORT_ROLE, SpiffeId
from keyark.keys.key_types import KeyType, SigningPrivateKey, generate_signing, narrow_signing_key
from keyark.keys.private_keys import AskPassword, load_private_key, save_private_key
from keyark.service.program.answers import MAX_SIZE, Answer, is_answer, request_fingerprint
from keyark.x509.authority import load_certificate_request
from keyark.x509.certificates import load_certificates

REQUEST: Final = "identity.csr"
MAX_REQUEST: Final = 64 * 1024


class Passwords(Protocol):
    """Where passwords come from: a person at a terminal, or a file."""

    def new(self) -> bytes | None:
        """Return the password for a key that is made, None for an unencrypted one."""

    def present(self) -> bytes:
        """Return the password of a key that is there and encrypted."""


@dataclass(frozen=True)
class OwnIdentity:
    """The folder (0700) of one identity: ``key.pem`` and ``cert.pem``, of a service ``identity-key.pem`` and so on.

    An agent's has the share key too. A service can be asked for no password, so its key is not encrypted.
    """

    folder: Path

    @property
    def request_file(self) -> Path:
        """The request for the authority, PEM; nothing in it is secret."""
        return self.folder / REQUEST

    @property
    def fingerprint(self) -> str:
        """What the operator of the authority compares: the SHA-256 of the request."""
        return request_fingerprint(read_file(self.request_file, max_size=MAX_REQUEST))

    @property
    def identity(self) -> SpiffeId:
        """Whom the request in the folder asks for."""
        return self._asked()

    def request(self, identity: SpiffeId, *, passwords: Passwords) -> Path:
        """Make a key and the request for its certificate; returns the request.

        Where the identity has a certificate already, the new key waits beside the present one for its own. A key that
        waits already is asked for again, so the command may be repeated until the certificate is there.
        Raises ConfigurationError, with nothing changed, for the transport key and where another identity lies there.
        """
        if identity.role == TRANSPORT_ROLE:
            raise ConfigurationError("The DRM makes this request: `keyark-drm transport-key new`.")
        make_private_folder(self.folder)
        self._check_same(identity)
        files, ask = _files(self.folder, identity), _Once(passwords.present)
        if files.certificate.exists():
            files.finish(ask_password=ask)
        if files.next_key.exists():
            key = load_private_key(files.next_key, ask_password=ask)
        elif files.key.exists() and not files.certificate.exists():
            key = load_private_key(files.key, ask_password=ask)
        else:
            key = generate_signing(KeyType.EC_P256)
            _save(files, key, password=None if identity.role in SERVICE_ROLES else passwords.new())
        csr = request_identity(narrow_signing_key(key), identity)
        write_file(self.request_file, encode_request(csr), mode=PUBLIC)
        return self.request_file

    def install(
        self, certificate: Path, *, anchors: Sequence[x509.Certificate], passwords: Passwords
    ) -> list[Path]:
        """Put an issued certificate into force; returns what to hand on: of an agent the signed share key.

        Raises ConfigurationError where it is not what was asked for, CertificateRequestError where none of ``anchors``
        signed it (not looked at where there are none), and the errors of ``load_private_key``. The present one stays.
        """
        identity = self._asked()
        chain = _issued(certificate, identity, anchors)
        if identity_of(chain[0]) != identity:
            raise ConfigurationError(f"{certificate} is not the certificate of {identity}.")
        if anchors:
            check_issuer(chain[0], anchors)
        password = _Once(passwords.present)
        files = _files(self.folder, identity)
        key = files.install(chain, ask_password=password)
        if identity.role != "agent":
            return []
        if (self.folder / SHARE_KEY).exists():
            return [sign_share_key_again(self.folder, key, ask_password=password)]
        return [make_share_key(self.folder, key, password=password.answer)]

    def _asked(self) -> SpiffeId:
        return asked_identity(load_certificate_request(read_file(self.request_file, max_size=MAX_REQUEST)))

    def _check_same(self, identity: SpiffeId) -> None:
        for name in ("identity.pem", "cert.pem"):
            if (self.folder / name).exists():
                self._check(identity, identity_of(load_certificates(self.folder / name)[0]))
        if self.request_file.exists():
            self._check(identity, self._asked())

    def _check(self, identity: SpiffeId, there: SpiffeId) -> None:
        if there != identity:
            raise ConfigurationError(f"{self.folder} belongs to {there}; name another folder for {identity}.")


def _issued(path: Path, identity: SpiffeId, anchors: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Read the certificate from a file of its own, or from an answer to many."""
    data = read_file(path, max_size=MAX_SIZE)
    if not is_answer(data):
        return load_certificates(path)
    answer = Answer.parse(data)
    answer.verify(anchors)
    return answer.chain(identity.path)


def anchors_of(certificate: Path) -> list[x509.Certificate]:
    """Return the internal CA that an answer names, for a folder that knows none; nothing for a certificate alone.

    Raises AnswerError where that CA did not sign the answer. Somebody has to compare its fingerprint.
    """
    data = read_file(certificate, max_size=MAX_SIZE)
    return Answer.parse(data).anchors() if is_answer(data) else []


def _save(files: IdentityFiles, key: SigningPrivateKey, *, password: bytes | None) -> None:
    if files.key.exists():
        files.prepare(key, password=password)
    else:
        save_private_key(files.key, key, password=password)


class _Once:
    """Asks for a password at most once, and remembers it for the share key, which gets the same."""

    def __init__(self, ask: AskPassword) -> None:
        self._ask = ask
        self.answer: bytes | None = None

    def __call__(self) -> bytes:
        if self.answer is None:
            self.answer = self._ask()
        return self.answer


def _files(folder: Path, identity: SpiffeId) -> IdentityFiles:
    if identity.role in SERVICE_ROLES:
        return IdentityFiles(key=folder / "identity-key.pem", certificate=folder / "identity.pem")
    return IdentityFiles(key=folder / "key.pem", certificate=folder / "cert.pem")
