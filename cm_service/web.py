"""What the CM answers over plain HTTP: certificate revocation lists and CA certificates.

    GET /crl/NAME           a list by the name of its file, DER
    GET /ca/issuer.cer      the issuing CA's certificate, DER
    GET /ca/chain.pem       it and those above it, PEM
    GET /ca/chain.p7c       the same as a certs-only CMS message, DER

All of it is public and signed, so that it needs no TLS (and must not: who verifies TLS asks for lists first).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from cm_service.crls import Crls
from keyark.clock import Clock
from keyark.pki.certificates import encode_certificate, load_certificates
from keyark.service.documents import Caching, HttpRequest, HttpResponse, cached, plain

READ_ONLY: Final = ("GET", "HEAD")
CRL_TYPE: Final = "application/pkix-crl"  # RFC 2585 §4.2
LISTS: Final = "/crl/"

_CaFormat = Callable[[list[x509.Certificate]], bytes]
_CA_FILES: Final[dict[str, tuple[str, _CaFormat]]] = {
    "/ca/issuer.cer": ("application/pkix-cert", lambda chain: encode_certificate(chain[0])),
    "/ca/chain.pem": (
        "application/pem-certificate-chain",
        lambda chain: b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain),
    ),
    "/ca/chain.p7c": (
        "application/pkcs7-mime; smime-type=certs-only",
        lambda chain: pkcs7.serialize_certificates(chain, Encoding.DER),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The CM's public documents; ``chain`` is the file of the CA's certificate followed by those above it.

    ``max_age`` is the longest time in seconds that caches keep something, and so the longest that a list which was
    published before its time goes unnoticed.
    """

    crls: Crls | None
    chain: Path
    clock: Clock
    max_age: int

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer one request; whatever is not there is 404."""
        path = request.target.partition("?")[0]
        if not (path in _CA_FILES or path.startswith(LISTS)):
            return plain(HTTPStatus.NOT_FOUND)
        if request.method not in READ_ONLY:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(READ_ONLY)))
        if path in _CA_FILES:
            return self._ca_file(request, *_CA_FILES[path])
        return self._crl(request, path.removeprefix(LISTS))

    def _ca_file(self, request: HttpRequest, content_type: str, encode: _CaFormat) -> HttpResponse:
        body = encode(load_certificates(self.chain))
        caching = Caching(
            now=self.now(),
            max_age=self.max_age,
            last_modified=int(self.chain.stat().st_mtime),
            entity_tag=f'"{sha256(body).hexdigest()[:32]}"',
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
