"""The transport keys of a running DRM: the newest is offered and signs, older ones open envelopes until retired.

A generation comes into force by a row and a TRANSPORT_KEY_ROTATED leaf in one transaction; what lies on disk without
them waits. Every step may be the last one
before a crash: workers take a key before it is offered and drop it before the log says so, the signature of both
keys is made up for at the next start, and a retired private key that is still there is deleted then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from drm_service.records import TRANSPORT_KEYS
from drm_service.transport.files import TransportFiles
from drm_service.transport.rows import (
    RETIRED,
    ROTATED,
    TransportKeyStateError,
    check_begins_later,
    check_same_key,
    put_new_key,
    put_retired_key,
    read_transport_keys,
    read_transport_records,
    row_key,
    spki_of,
    transport_key_leaf,
    validity_of,
)
from drm_service.workers.pool import ArchiveWorkers
from keyark.clock import Clock
from keyark.errors import KeyarkError, NotFoundError
from keyark.keys.key_types import KeyType
from keyark.keys.spki import key_id
from keyark.records.v1.drm_pb2 import TransportKeyRecord
from keyark.store import Store
from keyark.transparency.checkpoint import NoteSigner, parse_checkpoint
from keyark.transparency.log import Log, SignedHead
from keyark.transparency.succession import SuccessionSigner
from keyark.v1.audit_pb2 import TransportKeyChange
from keyark.v1.common_pb2 import TransportCertificate

MAX_CHANGES: Final = 64
"""Changes that one answer tells: at one rotation in two weeks, those of more than two years."""

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TransportKeys:
    """Rotates and retires, one change at a time. ``begin`` comes first, ``finish_handover`` second."""

    files: TransportFiles
    store: Store
    log: Log
    clock: Clock
    signer: SuccessionSigner
    origin: str
    workers: ArchiveWorkers | None = field(default=None, repr=False)
    _records: list[TransportKeyRecord] = field(default_factory=list)
    _certificates: Mapping[int, TransportCertificate] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def begin(self) -> None:
        """Take up the keys as log and disk have them; raises as ``read_transport_keys`` does."""
        self._records = self.store.read(lambda txn: read_transport_keys(txn, self.files))
        self._load_certificates()
        for record in self._records:
            if record.retired:
                self.files.delete_key(record.generation)
        newest = self._records[-1]
        if self._is_handing_over:
            self.signer.begin(self._note_signer(self._records[-2].generation))
            self.signer.hand_over(self._note_signer(newest.generation))
        else:
            self.signer.begin(self._note_signer(newest.generation))

    @property
    def _is_handing_over(self) -> bool:
        """Whether both newest keys have yet to sign a checkpoint; one that was lost, and so retired, cannot."""
        *_, before, newest = (None, *self._records)
        return before is not None and not before.retired and not newest.handover_checkpoint

    async def finish_handover(self) -> None:
        """Have a checkpoint signed by the newest key and the one before it, and keep it, where there is none yet.

        A key whose predecessor was lost signs it alone.
        """
        if len(self._records) == 1 or self._records[-1].handover_checkpoint:
            return
        newest = self._records[-1]
        head = await self.log.sign_anew()
        newest.handover_checkpoint = head.note
        value = newest.SerializeToString()
        await self.store.update(lambda txn: txn.put(TRANSPORT_KEYS, row_key(newest), value))
        self.signer.complete()

    @property
    def key_uris(self) -> list[str]:
        """Where the private keys are whose envelopes are taken."""
        return [self.files.key_uri(record.generation) for record in self._records if not record.retired]

    @property
    def offered(self) -> TransportCertificate:
        """The newest certificate."""
        return self._certificates[self._records[-1].generation]

    def changes(self, known_key_id: bytes, *, tree_size: int) -> list[TransportKeyChange]:
        """Return what shows a reader, who knows a key (id: 32 bytes) and a tree, each key that followed it.

        All changes are returned for a key that was never in force here. Raises TreeSizeError.
        """
        known = next((r.generation for r in self._records if r.key_id == known_key_id), 0)
        return [
            self._change(record, tree_size)
            for record in self._records
            if record.generation > known and record.handover_checkpoint
        ][-MAX_CHANGES:]

    def _change(self, record: TransportKeyRecord, tree_size: int) -> TransportKeyChange:
        size = parse_checkpoint(record.handover_checkpoint).size
        head = SignedHead(size, b"", record.handover_checkpoint)
        proof = self.log.prove(self.log.entry(record.rotated_index), record.rotated_index, head)
        change = TransportKeyChange(proof=proof, certificate=self._certificates[record.generation])
        if tree_size:
            change.link.CopyFrom(self.log.link_sizes(min(size, tree_size), max(size, tree_size)))
        return change

    async def reload(self) -> str:
        """Read the certificates anew, and let the key that waits come into force if its certificate is there."""
        async with self._turn:
            self._load_certificates()
            waiting = self._next_generation
            if not self.files.certificate_path(waiting).exists():
                return f"transport key {waiting - 1} stays in force"
            await self._rotate(waiting)
        return f"transport key {waiting} is in force"

    async def make(self, key_type: KeyType) -> dict[str, Any]:
        """Make the next key pair and its request, to be certified; calling it again returns the same one."""
        generation = self._next_generation
        self.files.make_key(generation, key_type)
        return {
            "generation": generation,
            "request": str(self.files.request_path(generation)),
            "certificate": str(self.files.certificate_path(generation)),
        }

    async def retire(self, generation: int) -> dict[str, Any]:
        """Refuse envelopes to a key from now on and delete its private half; calling it again repeats the latter.

        Raises NotFoundError, TransportKeyStateError for the newest, and WorkerStartError, after which nothing changed.
        """
        record = next((r for r in self._records if r.generation == generation), None)
        if record is None:
            raise NotFoundError(
                f"There is no transport key {generation}; `keyark transport-key list` lists them."
            )
        if record is self._records[-1]:
            raise TransportKeyStateError(
                f"Transport key {generation} is the one that clients use; rotate first, then retire it."
            )
        async with self._turn:
            if not next(r for r in self._records if r.generation == generation).retired:
                await self._retire(record)
            self.files.delete_key(generation)
        return next(key for key in self.describe() if key["generation"] == generation)

    async def retire_ended(self) -> None:
        """Retire the older keys whose certificates have ended: no client wraps to them any more."""
        ended = [
            record.generation
            for record in self._records[:-1]
            if not record.retired
            and validity_of(self._certificates[record.generation]).not_after < self._now()
        ]
        for generation in ended:
            await self.retire(generation)
            logger.info("transport key %d was retired, because its certificate has ended", generation)

    def describe(self) -> list[dict[str, Any]]:
        """Return what may be shown of all keys, the newest first."""
        return [self._describe(record) for record in reversed(self._records)]

    async def _retire(self, record: TransportKeyRecord) -> None:
        """Workers drop the key before the log says that it is refused; a crash between the two leaves it in force."""
        uris = self.key_uris
        await self._take([uri for uri in uris if uri != self.files.key_uri(record.generation)])
        leaf = transport_key_leaf(RETIRED, record.key_id, self.clock.now_us())
        try:
            await self.store.update(lambda txn: put_retired_key(txn, self.log, leaf, record=record))
        except KeyarkError:
            await self._take(uris)
            raise
        self._records = self.store.read(read_transport_records)

    async def _rotate(self, generation: int) -> None:
        """Workers take the key before it is offered; from the commit on it is the newest, whatever happens."""
        certificate = self.files.certificate(generation)
        spki = self.files.trust().verify(certificate, self._now())
        key = self.files.load_key(generation, spki)
        record = TransportKeyRecord(generation=generation, key_id=key_id(spki))
        if any(record.key_id == known.key_id for known in self._records):
            raise TransportKeyStateError(
                f"Transport key {generation} has been in force before; make a new one."
            )
        check_begins_later(certificate, self.offered, generation=generation)
        uris = self.key_uris
        await self._take([*uris, self.files.key_uri(generation)])
        leaf = transport_key_leaf(ROTATED, record.key_id, self.clock.now_us())
        try:
            await self.store.update(lambda txn: put_new_key(txn, self.log, leaf, record=record))
        except KeyarkError:
            await self._take(uris)
            raise
        self._records.append(record)
        self._certificates = {**self._certificates, generation: certificate}
        self.signer.hand_over(NoteSigner.from_private_key(self.origin, key))
        await self.finish_handover()

    async def _take(self, uris: list[str]) -> None:
        if self.workers is not None:
            await self.workers.take_transport_keys(uris)

    @property
    def _next_generation(self) -> int:
        return self._records[-1].generation + 1

    def _now(self) -> int:
        return self.clock.now_us() // 1_000_000

    def _load_certificates(self) -> None:
        """Load all certificates; the newest has to be the DRM's, and is offered after its end too, which is told."""
        loaded = {}
        for record in self._records:
            certificate = self.files.certificate(record.generation)
            check_same_key(self.files, record, certificate)
            loaded[record.generation] = certificate
        self.files.trust().verify(certificate, validity_of(certificate).not_before)
        if validity_of(certificate).not_after < self._now():
            logger.warning(
                "the certificate of transport key %d has ended, so clients do not use it: renew it, or rotate",
                self._records[-1].generation,
            )
        self._certificates = loaded
        _warn_of_younger(loaded)

    def _note_signer(self, generation: int) -> NoteSigner:
        spki = spki_of(self.files.certificate(generation))
        return NoteSigner.from_private_key(self.origin, self.files.load_key(generation, spki))

    def _describe(self, record: TransportKeyRecord) -> dict[str, Any]:
        state = "RETIRED" if record.retired else "OFFERED" if record is self._records[-1] else "TAKEN"
        return {
            "generation": record.generation,
            "key_id": record.key_id.hex(),
            "state": state,
            "log_index": record.rotated_index,
            "certificate": str(self.files.certificate_path(record.generation)),
        }


def _warn_of_younger(certificates: Mapping[int, TransportCertificate]) -> None:
    """Log a warning for each older key that was certified again after the one in force, the last of them."""
    *older, newest = certificates
    for generation in older:
        if validity_of(certificates[generation]).not_before >= validity_of(certificates[newest]).not_before:
            logger.warning(
                "transport key %d was certified again after key %d, which is in force: a reader that met only the "
                "latter could believe a stolen copy of the former. Renew the certificate of key %d.",
                generation,
                newest,
                newest,
            )
