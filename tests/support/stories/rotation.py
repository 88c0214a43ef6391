"""Transport keys rotated as an operator of three hosts does, on a deployment that runs in this process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from drm_service.config import DrmConfig
from drm_service.records import SCHEMA_VERSION, TABLES, TRANSPORT_KEYS
from keyark.client.access.sessions import open_session
from keyark.client.trust.receipts import list_entries
from keyark.config import load_config
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.private_keys import load_private_key
from keyark.records.v1.drm_pb2 import TransportKeyRecord
from keyark.store import open_store
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.merkle import leaf_hash, root_from_inclusion
from keyark.transparency.receipts import format_proof, parse_proof
from keyark.v1.audit_pb2 import AuditEvent, EventType, LoggedEvent
from keyark.x509.certificates import Validity, save_certificates
from tests.support.running.deployment import Deployment
from tests.support.stories.attacks import internal_ca

ROTATED = EventType.EVENT_TYPE_TRANSPORT_KEY_ROTATED
RETIRED = EventType.EVENT_TYPE_TRANSPORT_KEY_RETIRED


async def ask(deployment: Deployment, *arguments: str) -> Any:
    """Give the running DRM a `transport-key` command."""
    return await deployment.services["drm"].commands["transport-key"](arguments)


async def make(deployment: Deployment, key_type: str = "ec-p256") -> Any:
    """Have the next key made, and its request signed."""
    new = await ask(deployment, "new", key_type)
    sign(deployment.folder, new["request"], new["certificate"])
    return new


def sign(folder: Path, request: Path | str, certificate: Path | str, path: str = "drm/transport") -> None:
    """Sign a request with the deployment's authority."""
    authority = DeploymentAuthority.load(folder / "authority")
    authority.sign_identity(Path(request), SpiffeId(authority.trust_domain, path), Path(certificate))


def certify(
    folder: Path, *, ends_in: int, generation: int = 1, began: int = 300, not_before: int | None = None
) -> None:
    """Have a transport key certified from ``not_before``, or ``began`` seconds ago, until in ``ends_in`` seconds."""
    now, identity = int(time.time()), SpiffeId("example.org", "drm/transport")
    key = load_private_key(key_file(folder, generation))
    issued = issue_identity(
        internal_ca(folder),
        request_identity(key, identity),
        identity=identity,
        validity=Validity(now - began if not_before is None else not_before, now + ends_in),
    )
    save_certificates(certificate_file(folder, generation), [issued])


async def rotate(deployment: Deployment, key_type: str = "ec-p256") -> None:
    """Put a new key in force; the RM is told nothing."""
    await make(deployment, key_type)
    await deployment.services["drm"].reload()


async def states(deployment: Deployment) -> list[str]:
    """The states of all keys, the newest first."""
    return [key["state"] for key in await ask(deployment, "list")]


async def leaves(deployment: Deployment) -> list[tuple[int, str]]:
    """What the DRM's log says of transport keys: type and key id."""
    async with open_session(deployment.home(), "drm", identity="auditor/auditor") as session:
        events = [AuditEvent.FromString(entry.event.leaf) async for entry in list_entries(session)]
    return [(e.type, e.transport_key_id.hex()) for e in events if e.type in (ROTATED, RETIRED)]


def key_file(folder: Path, generation: int) -> Path:
    """Where a private key lies."""
    return folder / "drm" / "transport-keys" / str(generation) / "key.pem"


def certificate_file(folder: Path, generation: int) -> Path:
    """Where a certificate lies."""
    return key_file(folder, generation).with_name("transport.pem")


def forked_receipt(folder: Path, receipt: bytes, generation: int = 1) -> bytes:
    """Forge a receipt with a transport key: the same leaf in another tree of the same size, properly signed."""
    parsed = parse_proof(receipt)
    proof = [os.urandom(32), *parsed.proof[1:]]
    logged = LoggedEvent.FromString(parsed.extra)
    size = int(parsed.checkpoint.split(b"\n")[1])
    root = root_from_inclusion(
        leaf_hash=leaf_hash(logged.leaf), index=parsed.index, tree_size=size, proof=proof
    )
    note = sign_head(folder, Checkpoint("example.org/drm", size, root), generation)
    return format_proof(extra=parsed.extra, index=parsed.index, proof=proof, checkpoint=note)


def sign_head(folder: Path, head: Checkpoint, generation: int = 1) -> bytes:
    """Sign any head of the DRM's log with a transport key."""
    key = load_private_key(key_file(folder, generation))
    return NoteSigner.from_private_key(head.origin, key).sign(head)


async def change_row(folder: Path, generation: int, **values: Any) -> TransportKeyRecord:
    """Change a row in the store of a DRM that is stopped; returns what it was."""
    config = load_config(folder / "drm" / "drm.toml", DrmConfig)
    store = open_store(config.store.path, tables=TABLES, schema_version=SCHEMA_VERSION)
    key = generation.to_bytes(4, "big")
    try:
        before = TransportKeyRecord.FromString(store.get(TRANSPORT_KEYS, key) or b"")
        changed = TransportKeyRecord()
        changed.CopyFrom(before)
        for name, value in values.items():
            setattr(changed, name, value)
        await store.update(lambda txn: txn.put(TRANSPORT_KEYS, key, changed.SerializeToString()))
    finally:
        await store.close()
    return before
