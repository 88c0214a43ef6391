"""What a CM worker process does: sign both certificates of a pair. The CA key is nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from keyark.custody.uris import load_private_key_by_uri
from keyark.errors import KeyarkError
from keyark.errors.services import SigningMismatchError
from keyark.keys.spki import encode_spki
from keyark.records.v1.cm_pb2 import PairRecord, SignPairResult, SignPairTask
from keyark.statements.enrollment import Statement
from keyark.x509.certificates import Validity, load_certificate, load_certificates
from keyark.x509.end_entity import EndEntityIssuer
from keyark.x509.end_entity_profile import EndEntityProfile

FACTORY: Final = "cm_service.issuance.signing_worker:open_worker"


def worker_setup(
    *, issuer_key_uri: str, base: Path, chain: Path, profiles: Mapping[str, EndEntityProfile]
) -> bytes:
    """Return the set-up that ``open_worker`` takes: where the CA key is, never the key itself."""
    settings = {name: asdict(profile) for name, profile in profiles.items()}
    return json.dumps(
        {"key": issuer_key_uri, "base": str(base), "chain": str(chain), "profiles": settings}
    ).encode()


def open_worker(setup: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Load the CA key and return the function that works a batch of SignPairTasks.

    Raises ConfigurationError where key or certificate do not load or do not fit.
    """
    settings = json.loads(setup)
    private_key = load_private_key_by_uri(settings["key"], Path(settings["base"]))
    certificate = load_certificates(Path(settings["chain"]))[0]
    issuers = {
        name: EndEntityIssuer(
            certificate=certificate,
            private_key=private_key,  # type: ignore[arg-type]  # the issuer checks it
            profile=EndEntityProfile.restore(profile),
        )
        for name, profile in settings["profiles"].items()
    }

    def work(batch: list[bytes]) -> list[bytes]:
        return [sign_pair(task, issuers) for task in batch]

    return work


def sign_pair(task: bytes, issuers: Mapping[str, EndEntityIssuer]) -> bytes:
    """Sign both certificates of one SignPairTask; returns a serialized SignPairResult."""
    request = SignPairTask.FromString(task)
    pair = issuers[request.profile].issue_pair(
        common_name=request.common_name,
        email=request.email,
        signing_spki=request.signing_spki,
        encryption_spki=request.encryption_spki,
        signing_serial=request.signing_serial,
        encryption_serial=request.encryption_serial,
        validity=Validity(request.not_before, request.not_after),
    )
    return SignPairResult(
        signing_certificate=pair.signing, encryption_certificate=pair.encryption
    ).SerializeToString()


def check_signed(signed: SignPairResult, record: PairRecord, statement: Statement) -> None:
    """Raise SigningMismatchError unless each certificate holds the serial number and the public key that it should."""
    for certificate, serial, spki in (
        (signed.signing_certificate, record.signing_serial, statement.signing_spki),
        (signed.encryption_certificate, record.encryption_serial, statement.encryption_spki),
    ):
        if not _is_requested(certificate, serial, spki):
            raise SigningMismatchError(
                "The worker signed a certificate that was not requested, so nothing was issued."
            )


def _is_requested(der: bytes, serial: bytes, spki: bytes) -> bool:
    """Whether a certificate has a serial number and a public key; without a key there must be none."""
    if not spki:
        return not der
    try:
        certificate = load_certificate(der)
    except KeyarkError:
        return False
    is_same_key = encode_spki(certificate.public_key()) == spki
    return is_same_key and certificate.serial_number == int.from_bytes(serial)
