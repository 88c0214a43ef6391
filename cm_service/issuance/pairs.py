"""The record of a pair as it is to be, and what the workers are asked to sign for it."""

from __future__ import annotations

from cm_service.crl_settings import shard_key
from cm_service.issuance.serial_blocks import SerialPair
from keyark.records.v1.cm_pb2 import PairRecord, SignPairTask
from keyark.statements.enrollment import Statement
from keyark.x509.certificates import Validity


def new_record(
    statement: Statement, serials: SerialPair, validity: Validity, *, generation: int
) -> PairRecord:
    """Return the record of a pair whose certificates are missing; ``generation`` is that of the CA key."""
    return PairRecord(
        statement_sha256=statement.sha256,
        signing_serial=serials.signing,
        encryption_serial=serials.encryption if statement.encryption_spki else b"",
        common_name=statement.common_name,
        email=statement.email,
        profile=statement.profile,
        not_before=validity.not_before,
        not_after=validity.not_after,
        signing_spki_sha256=statement.signing_spki_sha256,
        encryption_spki_sha256=statement.encryption_spki_sha256,
        issuer_generation=generation,
    )


def serials_of(record: PairRecord) -> list[bytes]:
    """Return the serial numbers of a pair, signing first; one where it is for signing alone."""
    return [serial for serial in (record.signing_serial, record.encryption_serial) if serial]


def signing_task(record: PairRecord, statement: Statement, *, crl_shards: int) -> bytes:
    """Return what a worker signs, a serialized SignPairTask."""
    return SignPairTask(
        profile=shard_key(record.profile, record.signing_serial, crl_shards),
        common_name=record.common_name,
        email=record.email,
        signing_spki=statement.signing_spki,
        encryption_spki=statement.encryption_spki,
        signing_serial=record.signing_serial,
        encryption_serial=record.encryption_serial,
        not_before=record.not_before,
        not_after=record.not_after,
    ).SerializeToString()
