"""The rows of the transport keys, with their leaves: what the DRM's store and log say of each generation.

A DRM whose disk holds another key than its log says does not start.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from drm_service.records import TRANSPORT_KEYS
from drm_service.transport.files import TransportFiles
from drm_service.transport.restored import remove_mark
from keyark.errors import ConfigurationError, KeyarkError, Kind, NotFoundError
from keyark.keys.spki import encode_spki, key_id
from keyark.records.v1.drm_pb2 import TransportKeyRecord
from keyark.store import ReadTransaction, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event, parse_leaf
from keyark.transparency.integrity import stored_entry
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import Validity, load_certificate

MAX_GENERATIONS: Final = 1000

ROTATED: Final = EventType.EVENT_TYPE_TRANSPORT_KEY_ROTATED
RETIRED: Final = EventType.EVENT_TYPE_TRANSPORT_KEY_RETIRED


class TransportKeyUnknownError(ConfigurationError):
    """A transport key on disk is not the one that the log names, or the log names none."""

    reason = "TRANSPORT_KEY_UNKNOWN"


class TransportKeyStateError(KeyarkError):
    """The transport key is not in a state for this."""

    reason = "TRANSPORT_KEY_STATE"
    kind = Kind.PRECONDITION


def transport_key_leaf(event_type: EventType.ValueType, key_id: bytes, time_us: int) -> LoggedEvent:
    """Make the log entry of a transport key (id: 32 bytes) that came into force or was retired."""
    event = AuditEvent(version=EVENT_VERSION, type=event_type, time_us=time_us, transport_key_id=key_id)
    return new_event(event, AuditDetails())


def put_new_key(txn: WriteTransaction, log: Log, leaf: LoggedEvent, *, record: TransportKeyRecord) -> None:
    """Write the row of a generation that comes into force, with its leaf; raises KeyExistsError.

    A DRM that came from a backup archives from then on.
    """
    remove_mark(txn)
    txn.insert(TRANSPORT_KEYS, row_key(record), record.SerializeToString())
    log.append(txn, leaf, on_index=partial(_note_index, record, "rotated_index"))


def put_retired_key(
    txn: WriteTransaction, log: Log, leaf: LoggedEvent, *, record: TransportKeyRecord
) -> None:
    """Write the row of a generation whose envelopes are refused from now on, with its leaf."""
    retired = TransportKeyRecord()
    retired.CopyFrom(record)
    retired.retired = True
    txn.put(TRANSPORT_KEYS, row_key(retired), retired.SerializeToString())
    log.append(txn, leaf, on_index=partial(_note_index, retired, "retired_index"))


def read_transport_records(txn: ReadTransaction) -> list[TransportKeyRecord]:
    """Return the rows of all generations, the newest last; raises TransportKeyUnknownError for none."""
    rows = txn.scan(TRANSPORT_KEYS, limit=MAX_GENERATIONS)
    if not rows:
        raise _no_key_in_force()
    return [TransportKeyRecord.FromString(row) for _, row in rows]


def check_begins_later(
    certificate: TransportCertificate, before: TransportCertificate, *, generation: int
) -> None:
    """Raise TransportKeyStateError unless a new key's certificate begins after that of the key that it replaces.

    A reader that met only the new key could otherwise take a stolen copy of the older one for its successor.
    """
    if validity_of(certificate).not_before <= validity_of(before).not_before:
        raise TransportKeyStateError(
            f"The certificate of transport key {generation} begins no later than that of the key in "
            "force. Sign its request again (`keyark identities issue`), then run this command again."
        )


def _no_key_in_force() -> TransportKeyUnknownError:
    return TransportKeyUnknownError(
        "The log names no transport key that is in force; restore the store from a backup."
    )


def read_transport_keys(txn: ReadTransaction, files: TransportFiles) -> list[TransportKeyRecord]:
    """Return all generations, the newest last, once log, certificates and private keys on disk agree.

    Raises TransportKeyUnknownError, TransportKeyFileError, and the errors of keys and certificates that do not load.
    """
    records = read_transport_records(txn)
    if records[-1].retired:
        raise _no_key_in_force()
    for record in records:
        _check_logged(txn, record)
        certificate = files.certificate(record.generation)
        check_same_key(files, record, certificate)
        if not record.retired:
            files.load_key(record.generation, spki_of(certificate))
    return records


def _check_logged(txn: ReadTransaction, record: TransportKeyRecord) -> None:
    """Raise unless the log says of a key what its row does."""
    said = [(ROTATED, record.rotated_index)] + [(RETIRED, record.retired_index)] * record.retired
    for event_type, index in said:
        try:
            event = parse_leaf(stored_entry(txn, index).leaf)
        except NotFoundError:
            event = AuditEvent()
        if event.type != event_type or event.transport_key_id != record.key_id:
            raise TransportKeyUnknownError(
                f"Transport key {record.generation} is not what leaf {index} of the log says; restore the store from "
                "a backup."
            )


def check_same_key(
    files: TransportFiles, record: TransportKeyRecord, certificate: TransportCertificate
) -> None:
    """Raise unless a certificate is of the key that log and row name."""
    if key_id(spki_of(certificate)) != record.key_id:
        raise TransportKeyUnknownError(
            f"{files.certificate_path(record.generation)} is not for the key that the log names as "
            f"transport key {record.generation}; restore the certificate of {record.key_id.hex()}."
        )


def validity_of(certificate: TransportCertificate) -> Validity:
    """Return the validity of a transport certificate."""
    return Validity.of(load_certificate(certificate.certificate))


def spki_of(certificate: TransportCertificate) -> bytes:
    """Return the key of a transport certificate, SubjectPublicKeyInfo in DER."""
    return encode_spki(load_certificate(certificate.certificate).public_key())


def row_key(record: TransportKeyRecord) -> bytes:
    """Return where the row of a generation is."""
    return record.generation.to_bytes(4, "big")


def _note_index(record: TransportKeyRecord, name: str, txn: WriteTransaction, index: int) -> None:
    """Complete the row with the place of its leaf, which is known once the commit group is."""
    setattr(record, name, index)
    txn.put(TRANSPORT_KEYS, row_key(record), record.SerializeToString())
