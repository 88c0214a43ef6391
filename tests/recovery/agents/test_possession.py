"""P4: everything of DRM and RM and one share open nothing; what was altered never opens as a wrong key."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from drm_service.ceremonies.worker import CeremonyWorker
from drm_service.keys.storage_keys import read_tokens, storage_key_id
from drm_service.records import SCHEMA_VERSION, TABLES, find_by_key_id, put_sealed_key, scan_records
from keyark.client import KeyarkError
from keyark.custody.agents import ShareKey
from keyark.custody.shares import Share
from keyark.custody.storage import HybridPrivateKey, StoragePublicKey
from keyark.custody.token import open_share, open_software_token
from keyark.keys.spki import encode_spki
from keyark.records.v1.drm_pb2 import (
    AgentShares,
    ArchivedKeyRecord,
    CeremonyWorkerSetup,
    RecoverKeyTask,
    SealedKey,
    SoftwareToken,
)
from keyark.service.checks.leaves import enrollment_leaf
from keyark.statements.ceremonies import Opening, open_recovered_key, seal_released_share
from keyark.statements.enrollment import parse_statement
from keyark.store import open_store
from keyark.transparency.merkle import leaf_hash
from keyark.v1.audit_pb2 import EventType
from keyark.v1.recovery_pb2 import ReleasedShare
from tests.e2e.running.test_doctor import about, findings
from tests.support.keys.crypto import pkcs8
from tests.support.keys.pki import statement_bytes
from tests.support.keys.weak_rsa import COMPOSITE, PRIME, rsa_key
from tests.support.running.deployment import running
from tests.support.stories.recovering import (
    REASON,
    Lost,
    agents,
    approve,
    drm_log,
    identity_file,
    lose_key,
    state,
)

LEAF, DIGEST = b"a leaf", bytes(32)
OPENING = Opening(digest=DIGEST, leaf_hash=leaf_hash(LEAF))


def agent_id(name: str) -> str:
    return f"spiffe://example.org/agent/{name}"


async def stored(folder: Path) -> tuple[SoftwareToken, ArchivedKeyRecord]:
    """The token and the one archived key in the store of a DRM that does not run."""
    store = open_store(folder / "drm" / "store", tables=TABLES, schema_version=SCHEMA_VERSION)
    try:
        (token,) = store.read(read_tokens)
        ((_, record),) = store.read(lambda txn: scan_records(txn, after=None, limit=10))
    finally:
        await store.close()
    return token, record


def share_of(folder: Path, token: SoftwareToken, name: str) -> Share:
    pem = identity_file(folder, name, "share-key.pem").read_bytes()
    return open_share(token, ShareKey.from_pem(pem, password=None), agent_id(name))


def worker(token: SoftwareToken, shares: Sequence[tuple[str, Share]]) -> CeremonyWorker:
    """A ceremony's worker as somebody would start it who holds the one-time key as well."""
    key = HybridPrivateKey.generate()
    released = [
        AgentShares(
            agent=agent_id(name),
            shares=[
                ReleasedShare(
                    storage_key_id=storage_key_id(token),
                    ciphertext=seal_released_share(share, key.public_key, OPENING, storage_key_id(token)),
                )
            ],
        )
        for name, share in shares
    ]
    setup = CeremonyWorkerSetup(
        share_recipient_key=key.to_bytes(),
        ceremony_digest=DIGEST,
        opening_leaf=LEAF,
        tokens=[token],
        shares=released,
    )
    return CeremonyWorker(setup)


async def lost_deployment(folder: Path) -> Lost:
    """Enroll and lose a key, have bob approve, and stop all services."""
    async with running(folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob") as (alice, bob):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob)
    return lost


def recover(with_worker: CeremonyWorker, record: ArchivedKeyRecord, lost: Lost) -> bytes:
    """Have a worker recover a key, for a requester of one's own."""
    mine = HybridPrivateKey.generate()
    task = RecoverKeyTask(record=record, recipient_public_key=mine.public_key.to_bytes())
    return open_recovered_key(with_worker.recover_key(task), mine, DIGEST, lost.key_id)


def archived_without_proof(token: SoftwareToken, key: Any) -> ArchivedKeyRecord:
    """The record of a key that nobody looked at."""
    raw = statement_bytes(encryption_spki=encode_spki(key.public_key()))
    event = enrollment_leaf(EventType.EVENT_TYPE_KEY_ARCHIVED, parse_statement(raw), time_us=1)
    sealed = StoragePublicKey.from_bytes(token.public_key).seal(pkcs8(key), event.leaf)
    return ArchivedKeyRecord(statement=raw, leaf=event.leaf, sealed_key=sealed, certificate_serial=b"\x01")


async def test_the_folders_of_drm_and_rm_and_one_share_open_nothing(
    deployment_folder: Path, tmp_path: Path
) -> None:
    lost = await lost_deployment(deployment_folder)
    stolen = tmp_path / "stolen"
    for role in ("drm", "rm"):
        shutil.copytree(deployment_folder / role, stolen / role)
        for path in (stolen / role).rglob("*"):
            assert not path.is_file() or lost.private_key not in path.read_bytes()
    token, record = await stored(stolen)
    bob = share_of(deployment_folder, token, "bob")
    forged = [Share(i, os.urandom(32)) for i in (1, 2, 3)]
    for attempt in ([], [bob], [bob, bob], [bob, forged[0]], forged[:2]):
        with pytest.raises(KeyarkError) as refused:
            open_software_token(token, attempt)
        assert refused.value.reason in ("QUORUM_NOT_REACHED", "WRONG_SHARE")
    for shares in (
        [("bob", bob)],
        [("bob", bob), ("bob", bob)],
        [("bob", bob), ("alice", forged[0])],
        [("bob", bob), ("alice", bob)],
    ):
        with pytest.raises(KeyarkError) as refused:
            recover(worker(token, shares), record, lost)
        assert refused.value.reason in ("QUORUM_NOT_REACHED", "WRONG_SHARE")
    altered = SoftwareToken.FromString(token.SerializeToString())
    altered.quorum = 1  # a token that says otherwise opens no better
    with pytest.raises(KeyarkError):
        recover(worker(altered, [("bob", bob)]), record, lost)
    # and the same code opens it once a second share is there
    quorum = [("bob", bob), ("carol", share_of(deployment_folder, token, "carol"))]
    assert recover(worker(token, quorum), record, lost) == lost.private_key


async def test_whatever_byte_was_altered_no_wrong_key_comes_out(deployment_folder: Path) -> None:
    lost = await lost_deployment(deployment_folder)
    token, record = await stored(deployment_folder)
    quorum = worker(token, [(name, share_of(deployment_folder, token, name)) for name in ("bob", "carol")])
    assert recover(quorum, record, lost) == lost.private_key

    def altered(change: Any) -> ArchivedKeyRecord:
        copy = ArchivedKeyRecord.FromString(record.SerializeToString())
        change(copy)
        return copy

    def flip(message: Any, field: str, position: int) -> None:
        data = bytearray(getattr(message, field))
        data[position] ^= 1
        setattr(message, field, bytes(data))

    tried = 0
    for get, field in (
        (lambda r: r.sealed_key, "ciphertext"),
        (lambda r: r.sealed_key, "storage_key_id"),
        (lambda r: r, "leaf"),
        (lambda r: r, "statement"),
    ):
        for position in range(len(getattr(get(record), field))):
            damaged = altered(lambda r, g=get, f=field, p=position: flip(g(r), f, p))
            with pytest.raises(KeyarkError) as refused:
                recover(quorum, damaged, lost)
            assert refused.value.reason == "KEY_INTEGRITY", (field, position)
            tried += 1
    assert tried > len(record.sealed_key.ciphertext)
    for _ in range(8):  # by a release that tried one random message, which opens every second time
        with pytest.raises(KeyarkError) as refused:
            recover(quorum, archived_without_proof(token, rsa_key(COMPOSITE, PRIME)), lost)
        assert refused.value.reason == "KEY_INTEGRITY"
    for cut in (altered(lambda r: r.ClearField("sealed_key")), altered(lambda r: r.ClearField("leaf"))):
        with pytest.raises(KeyarkError) as refused:
            recover(quorum, cut, lost)
        assert refused.value.reason == "KEY_INTEGRITY"


async def test_an_altered_record_ends_the_recovery_with_an_integrity_error(deployment_folder: Path) -> None:
    lost = await lost_deployment(deployment_folder)
    store = open_store(deployment_folder / "drm" / "store", tables=TABLES, schema_version=SCHEMA_VERSION)
    record = store.read(lambda txn: find_by_key_id(txn, lost.key_id))
    sealed, whole = record.sealed_key, SealedKey()
    whole.CopyFrom(sealed)
    sealed.ciphertext = sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1])
    await store.update(lambda txn: put_sealed_key(txn, record.log_index, sealed))
    await store.close()
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol") as (alice, bob, carol),
    ):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        failed = await approve(asked.ceremony_id, bob, carol)
        assert state(failed) == "FAILED"
        assert "restore the store" in failed.view.failure.message
        (entry,) = [event for name, event, _ in await drm_log(deployment) if name == "KEY_DID_NOT_OPEN"]
        assert (entry.enrollment_id, entry.ceremony_id) == (lost.enrollment_id, asked.ceremony_id)
        assert entry.encryption_spki_sha256 == lost.key_id
    store = open_store(deployment_folder / "drm" / "store", tables=TABLES, schema_version=SCHEMA_VERSION)
    await store.update(lambda txn: put_sealed_key(txn, record.log_index, whole))
    await store.close()
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol") as (alice, bob, carol),
    ):
        (found,) = about(
            await findings(deployment), "could not be opened"
        )  # it is remembered across a restart
        assert lost.key_id.hex() in found.subject
        again = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(await approve(again.ceremony_id, bob, carol)) == "READY"
        assert about(await findings(deployment), "could not be opened") == []
