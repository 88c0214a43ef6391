"""How a host asks the authority for everything at once, and what it gets back: one file each way.

``request.json`` holds all requests of a service. The answer holds the certificates for all who asked together and the
issuing CA's chain, signed by the internal CA that the service believes since its `init`. Nothing in them is secret.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError

from keyark.config import Config
from keyark.contexts import context
from keyark.errors import KeyarkError, Kind
from keyark.files import PUBLIC, read_file, write_file, write_new_file
from keyark.folders import alone_in
from keyark.identity.certificates import asked_identity, check_issuer, identity_of
from keyark.identity.files import IdentityFiles
from keyark.identity.spiffe import TRANSPORT_ROLE, SpiffeId
from keyark.keys.key_types import SigningPrivateKey
from keyark.keys.signatures import sign_message, verify_message
from keyark.keys.spki import encode_spki
from keyark.x509.authority import load_certificate_request
from keyark.x509.certificates import load_certificates, load_pem_certificates

REQUEST: Final = "request.json"
MAX_SIZE: Final = 1 << 20
LABEL: Final = "keyark/answer/v1"
CA: Final = "ca"


@dataclass(frozen=True)
class _Part:
    """A certificate that a service needs besides its identity: its name in an answer, and the files."""

    name: str
    request: str | None
    certificate: str


_PARTS: Final[Mapping[str, tuple[_Part, ...]]] = {
    "rm": (),
    "cm": (_Part(CA, "ca.csr", "ca.pem"),),
    "drm": (
        _Part(TRANSPORT_ROLE, "transport-keys/1/transport.csr", "transport-keys/1/transport.pem"),
        _Part(CA, None, "ca.pem"),
    ),
}


class AnswerError(KeyarkError):
    """What a host sent to the authority, or the authority's answer, is malformed, foreign or incomplete."""

    reason = "AUTHORITY_ANSWER"
    kind = Kind.PRECONDITION


class HostRequest(Config):
    """All that a service asks the authority for: requests by name (PEM), and the key of its log for the bundle."""

    version: Literal[1]
    role: Literal["rm", "cm", "drm"]
    requests: dict[str, str]
    log_key: str = ""

    @classmethod
    def parse(cls, data: bytes) -> HostRequest:
        """Read a request.json; raises AnswerError for what is none, or has not the requests of its role."""
        try:
            read = cls.model_validate_json(data)
        except ValidationError:
            raise AnswerError("This is not the request.json of a service; make it again.") from None
        if set(read.requests) != {read.role, *(part.name for part in _PARTS[read.role] if part.request)}:
            raise AnswerError(f"The requests do not belong to a {read.role}; make them again.")
        return read


def request_fingerprint(data: bytes) -> str:
    """Return the SHA-256 of a file with requests, 64 hexadecimal digits, for people to compare."""
    return sha256(data).hexdigest()


def write_host_request(folder: Path, role: str) -> str:
    """Write request.json of a service that has just been made; returns its fingerprint."""
    requests = {role: _read(folder / "identity.csr")}
    requests |= {part.name: _read(folder / part.request) for part in _PARTS[role] if part.request}
    log_key = folder / "log.pub.pem"
    content = {
        "version": 1,
        "role": role,
        "requests": requests,
        "log_key": _read(log_key) if log_key.exists() else "",
    }
    data = json.dumps(content, indent=1).encode() + b"\n"
    write_new_file(folder / REQUEST, data, mode=PUBLIC)
    return request_fingerprint(data)


class AnswerContent(Config):
    """What the authority issued: certificates by name (rm, drm/transport, agent/alice), and the CA's chain; PEM.

    ``trust_anchor`` is the internal CA itself, for whoever compares its fingerprint; answers of before lack it.
    """

    version: Literal[1]
    trust_domain: str
    trust_anchor: str = ""
    certificates: Annotated[dict[str, str], Field(max_length=10_000)]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer as it was read; nothing of it counts before ``verify``."""

    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    content: AnswerContent

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        """Read an answer; raises AnswerError for what is none."""
        try:
            outer = json.loads(data)
            body = outer["answer"].encode()
            signature = base64.b64decode(outer["signature"], validate=True)
            content = AnswerContent.model_validate_json(body)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
            raise AnswerError("This is not a file of `keyark authority answer`; fetch it again.") from None
        return cls(body=body, signature=signature, content=content)

    def verify(self, anchors: Sequence[x509.Certificate]) -> None:
        """Raise AnswerError unless one of these internal CAs signed the answer."""
        for anchor in anchors:
            key = anchor.public_key()
            if isinstance(key, ec.EllipticCurvePublicKey):
                with contextlib.suppress(InvalidSignature):
                    verify_message(key, self.signature, context(LABEL, self.body))
                    return
        raise AnswerError(
            "The answer is not signed by the internal CA that this folder trusts; ask the authority for "
            "the right answer."
        )

    def anchors(self) -> list[x509.Certificate]:
        """Return the internal CA that the answer names, whom nobody has to believe; it signed the answer.

        Raises AnswerError where it did not, or where the answer names none.
        """
        if not self.content.trust_anchor:
            raise AnswerError(
                "The answer does not name its internal CA, and this folder knows none; ask the authority for another."
            )
        anchors = load_pem_certificates(self.content.trust_anchor.encode())
        self.verify(anchors)
        return anchors

    def chain(self, name: str) -> list[x509.Certificate]:
        """Return the certificate for a name, and those above it; raises AnswerError where there is none."""
        text = self.content.certificates.get(name)
        if text is None:
            raise AnswerError(
                f"The answer has nothing for {name}; have the requests of all services answered together."
            )
        return load_pem_certificates(text.encode())


def write_answer(path: Path, content: AnswerContent, key: SigningPrivateKey) -> None:
    """Sign an answer with the internal CA's key, and write it."""
    body = content.model_dump_json()
    signature = base64.b64encode(sign_message(key, context(LABEL, body.encode()))).decode()
    write_file(path, json.dumps({"answer": body, "signature": signature}).encode() + b"\n", mode=PUBLIC)


def is_answer(data: bytes) -> bool:
    """Whether a file is meant as an answer, and not as a certificate (PEM)."""
    return data.lstrip().startswith(b"{")


def install_answer(folder: Path, role: str, answer: Path) -> list[Path]:
    """Put the certificates of an answer where a new service's configuration expects them; returns the files.

    A service that has its identity takes nothing: an answer in a unit file brings no older certificate back.
    Raises AnswerError, CertificateRequestError and the errors of files, with nothing written, where the answer is not
    of the internal CA that the folder believes or not for the keys that lie there. The identity is written last, so an
    interrupted command is repeated.
    """
    with alone_in(folder):
        if (folder / "identity.pem").exists():
            return []
        read = Answer.parse(read_file(answer, max_size=MAX_SIZE))
        anchors = load_certificates(folder / "trust-anchor.pem")
        read.verify(anchors)
        identity = _load_request(folder / "identity.csr")
        chain = _own(read, role, identity, anchors)
        if identity_of(chain[0]) != asked_identity(identity):
            raise AnswerError(
                f"The answer's certificate for {role} does not name {asked_identity(identity)}."
            )
        files = {folder / part.certificate: _part(read, folder, part, anchors) for part in _PARTS[role]}
        for path, text in files.items():
            write_file(path, text.encode(), mode=PUBLIC)
        (folder / REQUEST).unlink(missing_ok=True)
        IdentityFiles(key=folder / "identity-key.pem", certificate=folder / "identity.pem").install(chain)
        return [*files, folder / "identity.pem"]


def _part(read: Answer, folder: Path, part: _Part, anchors: Sequence[x509.Certificate]) -> str:
    chain = read.chain(part.name)
    if part.name == TRANSPORT_ROLE:
        request = _load_request(folder / str(part.request))
        _own(read, part.name, request, anchors)
        if identity_of(chain[0]) != SpiffeId(read.content.trust_domain, TRANSPORT_ROLE):
            raise AnswerError("The answer's transport certificate does not name a DRM.")
    elif part.request is not None:
        _check_key(chain[0], _load_request(folder / part.request), part.name)
    return read.content.certificates[part.name]


def _own(
    read: Answer, name: str, request: x509.CertificateSigningRequest, anchors: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    chain = read.chain(name)
    check_issuer(chain[0], anchors)
    _check_key(chain[0], request, name)
    return chain


def _check_key(certificate: x509.Certificate, request: x509.CertificateSigningRequest, name: str) -> None:
    if encode_spki(certificate.public_key()) != encode_spki(request.public_key()):
        raise AnswerError(f"The answer's certificate for {name} is for another key; send request.json again.")


def _load_request(path: Path) -> x509.CertificateSigningRequest:
    return load_certificate_request(read_file(path, max_size=MAX_SIZE))


def _read(path: Path) -> str:
    return read_file(path, max_size=MAX_SIZE).decode("ascii")
