"""What a DRM worker process does: open, prove the key fit, seal. Plaintext keys exist nowhere else.

A worker holds the transport private keys and the storage *public* keys; it can put keys in and take none out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyark.custody.envelopes import EnvelopeKeys
from keyark.custody.matching import prove_fit
from keyark.custody.storage import StoragePublicKey
from keyark.custody.uris import load_private_key_by_uri
from keyark.errors import KeyarkError
from keyark.records.v1.drm_pb2 import ArchiveResult, ArchiveTask, ArchiveWorkerSetup
from keyark.service.failures import pack_failure

FACTORY = "drm_service.workers.key_worker:open_worker"


def worker_setup(
    *, transport_key_uris: Sequence[str], base: Path, storage_public_keys: Sequence[bytes]
) -> bytes:
    """Return the set-up that ``open_worker`` takes: where the transport keys are, never the keys themselves."""
    return ArchiveWorkerSetup(
        transport_key_uris=transport_key_uris, base=str(base), storage_public_keys=storage_public_keys
    ).SerializeToString()


@dataclass(frozen=True, kw_only=True)
class ArchiveKeys:
    """The keys that a worker works with; storage keys by their id."""

    transport: EnvelopeKeys
    storage: Mapping[bytes, StoragePublicKey]


def open_worker(setup: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Load the transport keys and return the function that works a batch of ArchiveTasks.

    Raises ConfigurationError where a key does not load.
    """
    settings = ArchiveWorkerSetup.FromString(setup)
    base = Path(settings.base)
    storage = [StoragePublicKey.from_bytes(key) for key in settings.storage_public_keys]
    keys = ArchiveKeys(
        transport=EnvelopeKeys(load_private_key_by_uri(uri, base) for uri in settings.transport_key_uris),
        storage={key.key_id: key for key in storage},
    )

    def work(batch: list[bytes]) -> list[bytes]:
        return [archive_one(task, keys) for task in batch]

    return work


def archive_one(task: bytes, keys: ArchiveKeys) -> bytes:
    """Open one envelope, prove that the key matches, seal it to the storage key bound to its leaf."""
    request = ArchiveTask.FromString(task)
    try:
        private_key = keys.transport.open(request.wrapped_private_key, request.statement_sha256)
        private_key = prove_fit(private_key, request.encryption_spki)
        sealed = keys.storage[request.storage_key_id].seal(private_key, request.leaf)
        result = ArchiveResult(sealed_key=sealed)
    except KeyarkError as error:
        result = ArchiveResult(failure=pack_failure(error))
    return result.SerializeToString()
