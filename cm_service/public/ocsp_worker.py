"""What worker processes do for OCSP: make a responder's key and certificate, and sign answers with it.

The CA key is only in the process that makes a responder, and that one ends when it is done. The processes that
sign what strangers ask for hold the responder's key alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.custody.uris import load_private_key_by_uri
from keyark.files import write_file
from keyark.keys.private_keys import KeyFileError, encode_key_file, load_private_key
from keyark.records.v1.cm_pb2 import MakeResponderTask, SignOcspTask
from keyark.x509.authority import Authority
from keyark.x509.certificates import Validity, encode_certificate, load_certificates
from keyark.x509.ocsp import CertificateId, OcspSigner, OcspStanding, OcspStatement, issue_responder

SIGNING_FACTORY: Final = "cm_service.public.ocsp_worker:open_signer"
MAKING_FACTORY: Final = "cm_service.public.ocsp_worker:open_maker"

Work = Callable[[list[bytes]], list[bytes]]


def maker_setup(*, issuer_key_uri: str, base: Path, chain: Path) -> bytes:
    """Return the set-up that ``open_maker`` takes: where the CA key is, never the key itself."""
    return json.dumps({"key": issuer_key_uri, "base": str(base), "chain": str(chain)}).encode()


def open_maker(setup: bytes) -> Work:
    """Load the CA key and return the function that works MakeResponderTasks, each to a certificate, DER.

    Raises ConfigurationError where key or certificate do not load or do not fit.
    """
    settings = json.loads(setup)
    private_key = load_private_key_by_uri(settings["key"], Path(settings["base"]))
    certificate = load_certificates(Path(settings["chain"]))[0]
    authority = Authority(certificate=certificate, private_key=private_key)  # type: ignore[arg-type]
    return lambda batch: [make_responder(task, authority) for task in batch]


def make_responder(task: bytes, authority: Authority) -> bytes:
    """Make a new key and its certificate, write both to the task's file (0600), return the certificate, DER."""
    request = MakeResponderTask.FromString(task)
    key = ec.generate_private_key(ec.SECP256R1())
    validity = Validity(request.not_before, request.not_after)
    certificate = issue_responder(authority, key.public_key(), validity=validity)
    pem = certificate.public_bytes(Encoding.PEM)
    path = Path(request.path)
    write_file(path, encode_key_file(path, key) + pem, mode=0o600)
    return encode_certificate(certificate)


def signer_setup(responder: Path) -> bytes:
    """Return the set-up that ``open_signer`` takes: the file with the responder's key and certificate."""
    return str(responder).encode()


def open_signer(setup: bytes) -> Work:
    """Load the responder's key and return the function that works SignOcspTasks, each to an OCSPResponse, DER.

    Raises ConfigurationError where the file does not load.
    """
    path = Path(setup.decode())
    private_key = load_private_key(path)
    if not isinstance(private_key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(
            f"{path} is not the key of an OCSP responder; move it away, and the CM makes a new one."
        )
    signer = OcspSigner(certificate=responder_certificate(path), private_key=private_key)
    return lambda batch: [sign_answer(task, signer) for task in batch]


def responder_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a responder's file; raises the errors of ``load_certificates``."""
    return load_certificates(path)[0]


def sign_answer(task: bytes, signer: OcspSigner) -> bytes:
    """Sign the answer of one SignOcspTask."""
    request = SignOcspTask.FromString(task)
    return signer.sign(
        OcspStatement(
            certificate=CertificateId(
                hash_name=request.hash_name,
                issuer_name_hash=request.issuer_name_hash,
                issuer_key_hash=request.issuer_key_hash,
                serial=request.serial,
            ),
            standing=OcspStanding(
                known=request.known,
                revocation_time=request.revocation_time if request.HasField("revocation_time") else None,
                reason=request.reason,
            ),
            this_update=request.this_update,
            next_update=request.next_update,
            nonce=request.nonce if request.HasField("nonce") else None,
        )
    )
