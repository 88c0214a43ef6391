"""What a DRM worker process does: open, prove the match, seal. Plaintext keys exist nowhere else.

A worker holds the transport private key and the storage *public* key; it can put keys in and take none out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from keyark.crypto.envelopes import TransportKey
from keyark.crypto.matching import prove_match
from keyark.crypto.storage import StoragePublicKey
from keyark.crypto.uris import load_private_key_by_uri
from keyark.errors import KeyarkError
from keyark.records.v1.drm_pb2 import ArchiveResult, ArchiveTask
from keyark.service.failures import pack_failure

FACTORY = "drm_service.key_worker:open_worker"


def worker_setup(*, transport_key_uri: str, base: Path, storage_public_key: bytes) -> bytes:
    """Return the set-up that ``open_worker`` takes: where the transport key is, never the key itself."""
    return json.dumps(
        {
            "transport_key": transport_key_uri,
            "base": str(base),
            "storage_public_key": storage_public_key.hex(),
        }
    ).encode()


def open_worker(setup: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Load the transport key and return the function that works a batch of ArchiveTasks.

    Raises ConfigurationError where the key does not load.
    """
    settings = json.loads(setup)
    transport_key = TransportKey(load_private_key_by_uri(settings["transport_key"], Path(settings["base"])))
    storage_key = StoragePublicKey.from_bytes(bytes.fromhex(settings["storage_public_key"]))

    def work(batch: list[bytes]) -> list[bytes]:
        return [archive_one(task, transport_key, storage_key) for task in batch]

    return work


def archive_one(task: bytes, transport_key: TransportKey, storage_key: StoragePublicKey) -> bytes:
    """Open one envelope, prove that the key matches, seal it to the storage key bound to its leaf."""
    request = ArchiveTask.FromString(task)
    try:
        private_key = transport_key.open(request.wrapped_private_key, request.statement_sha256)
        private_key = prove_match(private_key, request.encryption_spki)
        result = ArchiveResult(sealed_key=storage_key.seal(private_key, request.leaf))
    except KeyarkError as error:
        result = ArchiveResult(failure=pack_failure(error))
    return result.SerializeToString()
