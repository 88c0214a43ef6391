"""What the CM answers over plain HTTP: certificate revocation lists, CA certificates and OCSP.

    GET /crl/NAME           a list by the name of its file, DER
    GET /ca/issuer.cer      the certificate of the CA's first key, DER
    GET /ca/chain.pem       it and those above it, PEM
    GET /ca/chain.p7c       the same and chains that were in force before, as a certs-only CMS message, DER
    GET /ca/issuer-ca2.cer  and the other two, of the CA key of generation 2
    POST /ocsp              an OCSPRequest, DER
    GET /ocsp/BASE64        the same in the URL (RFC 6960 §A.1)

All of it is public and signed, so that it needs no TLS (and must not: who verifies TLS asks for lists first).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from cm_service.crl_settings import CrlSettings
from cm_service.issuer.generations import suffix
from cm_service.public.documents import Caching, HttpRequest, HttpResponse, cached, plain
from cm_service.public.ocsp import OcspAnswer
from keyark.clock import Clock
from keyark.x509.certificates import encode_certificate, encode_pem_certificates, load_certificates
from keyark.x509.chains import path_in_force

READ_ONLY: Final = ("GET", "HEAD")
CRL_TYPE: Final = "application/pkix-crl"  # RFC 2585 §4.2
LISTS: Final = "/crl/"
OCSP: Final = "/ocsp"
OCSP_TYPE: Final = "application/ocsp-response"

_CaFormat = Callable[[list[x509.Certificate]], bytes]
_CA_FILES: Final[dict[tuple[str, str], tuple[str, _CaFormat]]] = {
    ("/ca/issuer", "cer"): ("application/pkix-cert", lambda chain: encode_certificate(chain[0])),
    ("/ca/chain", "pem"): (
        "application/pem-certificate-chain",
        lambda chain: encode_pem_certificates(path_in_force(chain)),
    ),
    ("/ca/chain", "p7c"): (
        "application/pkcs7-mime; smime-type=certs-only",
        lambda chain: pkcs7.serialize_certificates(chain, Encoding.DER),
    ),
}


class Lists(Protocol):
    """The CRLs of one CA key, or of all."""

    @property
    def settings(self) -> CrlSettings:
        """Where they are."""

    def due(self, name: str) -> int | None:
        """Return when the successor of the list in this file is due, seconds UTC; None where there is no such list."""


class Responders(Protocol):
    """OCSP for one CA key, or for all."""

    async def answer(self, der: bytes) -> OcspAnswer:
        """Answer an OCSPRequest, DER."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The CM's public documents; ``chain`` is the file of the CA's certificate followed by those above it, and
    ``chains`` those of each generation.

    ``max_age`` is the longest time in seconds that caches keep something, and so the longest that a list which was
    published before its time goes unnoticed.
    """

    crls: Lists | None
    ocsp: Responders | None
    chain: Path
    clock: Clock
    max_age: int
    chains: Mapping[int, Path] = field(default_factory=dict)

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer one request; whatever is not there is 404."""
        path = request.target.partition("?")[0]
        if self.ocsp is not None and (path == OCSP or path.startswith(OCSP + "/")):
            return await self._answer_ocsp(self.ocsp, request, path)
        ca_file = self._ca_files.get(path)
        if ca_file is None and not path.startswith(LISTS):
            return plain(HTTPStatus.NOT_FOUND)
        if request.method not in READ_ONLY:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(READ_ONLY)))
        if ca_file is not None:
            return self._ca_file(request, *ca_file)
        return self._crl(request, path.removeprefix(LISTS))

    @cached_property
    def _ca_files(self) -> dict[str, tuple[Path, str, _CaFormat]]:
        """The file, type and format of each CA document, by its path."""
        named = {"": self.chain}  # where no generation is the first, whose URLs have no number
        for generation, chain in self.chains.items():
            named |= {suffix(generation): chain, f"-ca{generation}": chain}
        return {
            f"{stem}{which}.{ending}": (chain, *form)
            for which, chain in named.items()
            for (stem, ending), form in _CA_FILES.items()
        }

    async def _answer_ocsp(self, ocsp: Responders, request: HttpRequest, path: str) -> HttpResponse:
        in_url = path.removeprefix(OCSP).lstrip(
            "/"
        )  # a URL in certificates may end with one, and clients add one
        allowed = READ_ONLY if in_url else ("POST",)
        if request.method not in allowed:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(allowed)))
        answer = await ocsp.answer(_from_url(in_url) if in_url else request.body)
        response = HttpResponse(status=HTTPStatus.OK, content_type=OCSP_TYPE, body=answer.body)
        if answer.next_update is None or not in_url:
            return replace(response, headers=(("Cache-Control", "no-store"),))
        now = self.now()
        caching = Caching(
            now=now,
            max_age=max(0, min(answer.next_update - now, self.max_age)),
            last_modified=answer.this_update,
            entity_tag=_tag(answer.body),
        )
        return cached(request, response, caching)

    def _ca_file(
        self, request: HttpRequest, chain: Path, content_type: str, encode: _CaFormat
    ) -> HttpResponse:
        body = encode(load_certificates(chain))
        caching = Caching(
            now=self.now(),
            max_age=self.max_age,
            last_modified=int(chain.stat().st_mtime),
            entity_tag=_tag(body),
        )
        response = HttpResponse(status=HTTPStatus.OK, content_type=content_type, body=body)
        return cached(request, response, caching)

    def _crl(self, request: HttpRequest, name: str) -> HttpResponse:
        due = self.crls.due(name) if self.crls else None
        if self.crls is None or due is None:
            return plain(HTTPStatus.NOT_FOUND)
        try:
            file = (self.crls.settings.folder / name).open("rb")
        except OSError:  # it is made again within seconds
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", "10"))
        # All that is told is of the file that was opened: it may be replaced at any moment.
        status = os.fstat(file.fileno())
        now = self.now()
        caching = Caching(
            now=now,
            max_age=max(0, min(due - now, self.max_age)),
            last_modified=int(status.st_mtime),
            entity_tag=f'"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"',
        )
        response = HttpResponse(status=HTTPStatus.OK, content_type=CRL_TYPE, file=file, size=status.st_size)
        return cached(request, response, caching)

    def now(self) -> int:
        """Seconds UTC."""
        return self.clock.now_us() // 1_000_000


def _tag(body: bytes) -> str:
    return f'"{sha256(body).hexdigest()[:32]}"'


def _from_url(path: str) -> bytes:
    """Return the request in the URL; nothing, which is no request, where it is not base64."""
    try:
        return base64.b64decode(unquote(path), validate=True)
    except (binascii.Error, ValueError):
        return b""
