"""P10: after a recovery no process of the DRM holds a share, the PIN, the storage private key or the recovered key."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from drm_service.keys.storage_keys import read_tokens
from drm_service.records import SCHEMA_VERSION, TABLES
from keyark.custody.agents import ShareKey
from keyark.custody.token import open_share, open_software_token, recover_pin
from keyark.keys.key_types import KeyType
from keyark.store import open_store
from tests.support.running.deployment import Deployment
from tests.support.running.drm_process import family, memory_holds
from tests.support.running.processes import init_home, keyark, up
from tests.support.stories.recovering import REASON, agents, approve, identity_file, lose_key

CONTROL = b"spiffe://example.org/agent/alice"


async def archive_secrets(folder: Path) -> dict[str, bytes]:
    """The secrets of the archive, known to the test for it has every agent's keys."""
    store = open_store(folder / "drm" / "store", tables=TABLES, schema_version=SCHEMA_VERSION)
    (token,) = store.read(read_tokens)
    await store.close()
    shares = []
    for name in ("bob", "carol"):
        pem = identity_file(folder, name, "share-key.pem").read_bytes()
        agent = f"spiffe://example.org/agent/{name}"
        shares.append(open_share(token, ShareKey.from_pem(pem, password=None), agent))
    seed, x25519 = (part.private_bytes_raw() for part in open_software_token(token, shares).parts)
    return {
        "bob's share": shares[0].value,
        "carol's share": shares[1].value,
        "PIN": recover_pin(token, shares),
        "storage key, ML-KEM": seed,
        "storage key, X25519": x25519,
    }


def key_secrets(private_key: bytes) -> dict[str, bytes]:
    """A recovered P-256 key, as DER and as the number itself in both byte orders."""
    key = load_der_private_key(private_key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value
    return {
        "recovered key, DER": private_key,
        "recovered key, big-endian": scalar.to_bytes(32, "big"),
        "recovered key, little-endian": scalar.to_bytes(32, "little"),
    }


def drm_pid(parent: int) -> int:
    """The DRM below `keyark up`."""
    (pid,) = (
        pid
        for pid in family(parent)
        if b"drm_service" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    )
    return pid


async def test_nothing_stays_in_the_memory_of_the_drm(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    init_home(folder, workers=2)
    secrets = await archive_secrets(folder)
    deployment = Deployment(folder=folder, services={})
    with up(folder) as process:
        lost = await lose_key(deployment, encryption_key_type=KeyType.EC_P256)
        secrets |= key_secrets(lost.private_key)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob, carol)
            assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
            await alice.acknowledge(asked.ceremony_id)
        keyark("reload", "--home", folder)  # archival workers saw the key when it was archived
        pids = family(drm_pid(process.pid))
        assert len(pids) == 3  # the disposable workers are gone
        if os.geteuid() != 0:  # the kernel keeps everybody else from looking, which is as good
            return
        assert memory_holds(pids[0], {"control": CONTROL}) == {"control"}
        for pid in pids:
            assert memory_holds(pid, secrets) == set()


def test_the_search_finds_what_is_there() -> None:
    secret = os.urandom(32)
    assert memory_holds(os.getpid(), {"here": secret}) == {"here"}
