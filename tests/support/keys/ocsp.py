"""OCSP of an office: its responder is made and its answers are signed here with the workers' own functions."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from cm_service.public.ocsp import Ocsp
from cm_service.public.ocsp_worker import maker_setup, open_maker, open_signer, signer_setup
from cm_service.public.responder import Responder
from keyark.errors import KeyarkError
from keyark.keys.private_keys import save_private_key
from keyark.x509.authority import Authority
from keyark.x509.certificates import save_certificates
from keyark.x509.serials import decode_serial
from tests.support.keys.pki import DAY, issuing_ca
from tests.support.stories.office import Office

HOUR = 3600


class OcspOffice:
    """An office that answers; ``signed`` counts what workers signed, ``fail`` is what they and the maker raise."""

    def __init__(self, folder: Path, office: Office, authority: Authority | None = None) -> None:
        self.office = office
        self.authority = authority or issuing_ca()
        self.folder = folder / "ca"
        self.folder.mkdir(mode=0o700)
        save_private_key(self.folder / "ca-key.pem", self.authority.private_key)
        save_certificates(self.folder / "ca.pem", [self.authority.certificate])
        self.signed = self.made = 0
        self.fail: KeyarkError | None = None
        self.responder = Responder(
            path=self.folder / "responder.pem",
            chain=self.folder / "ca.pem",
            lifetime=2 * DAY,
            store=office.store,
            log=office.log,
            clock=office.clock,
            open_maker=self._open_maker,
        )
        self.ocsp: Any = None

    async def open(self) -> OcspOffice:
        await self.responder.renew_due()
        await self.reconfigure(signer_setup(self.responder.path))
        self.ocsp = Ocsp(
            responder=self.responder,
            store=self.office.store,
            clock=self.office.clock,
            pool=self,
            valid=HOUR,
        )
        return self

    @asynccontextmanager
    async def _open_maker(self) -> AsyncIterator[Any]:
        setup = maker_setup(issuer_key_uri="file:ca-key.pem", base=self.folder, chain=self.folder / "ca.pem")
        work = open_maker(setup)
        office = self

        class Maker:
            async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
                if office.fail is not None:
                    return [office.fail]
                office.made += 1
                return work(list(items))

        yield Maker()

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        if self.fail is not None:
            return [self.fail]
        self.signed += len(items)
        return self._work(list(items))

    async def reconfigure(self, setup: bytes) -> None:
        if self.fail is not None:
            raise self.fail
        self._work = open_signer(setup)

    async def ask(self, der: bytes) -> ocsp.OCSPResponse:
        """The answer as the library reads it; where it is a success, signed by the responder in force."""
        answer = await self.ocsp.answer(der)
        response = ocsp.load_der_ocsp_response(answer.body)
        if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
            (responder,) = response.certificates
            responder.verify_directly_issued_by(self.authority.certificate)
            key = responder.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
        return response


def request_for(
    serial: bytes,
    *,
    issuer: x509.Certificate | None = None,
    algorithm: hashes.HashAlgorithm | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """An OCSPRequest, DER, about a serial number of an issuer."""
    issuer = issuer or issuing_ca().certificate
    algorithm = algorithm or hashes.SHA1()
    like = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, algorithm).build()
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        hashlib.new(algorithm.name, issuer.subject.public_bytes()).digest(),
        like.issuer_key_hash,
        decode_serial(serial),
        algorithm,
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.build().public_bytes(Encoding.DER)
