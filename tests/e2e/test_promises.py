"""P1, P2, P4, P8, P9, P10 on a running deployment, and what a stopped one's disk gives away."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from drm_service.config import DrmConfig
from drm_service.keys.storage_keys import read_tokens
from drm_service.records import SCHEMA_VERSION, TOKENS, scan_records
from drm_service.records import TABLES as DRM_TABLES
from keyark.client.trust.verification import Enrolled
from keyark.config import load_config
from keyark.custody.agents import ShareKey
from keyark.custody.shares import QuorumNotReachedError, Share
from keyark.custody.storage import SealError
from keyark.custody.token import TokenError, open_share, open_software_token
from keyark.errors import ConfigurationError, KeyarkError, PolicyRejectedError, UnavailableError
from keyark.errors.services import LogCorruptError
from keyark.keys.key_types import KeyType, generate
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord, SealedKey, SoftwareToken
from keyark.service.program import maintenance
from keyark.store import open_store
from keyark.transparency._rows import LEAVES
from tests.support.running.deployment import Deployment, edit, running
from tests.support.stories.enrolling import enrolling, holdings, pkcs8

ARCHIVED_TYPES = (KeyType.RSA_2048, KeyType.EC_P384, KeyType.X25519, KeyType.ML_KEM_1024)


async def storage_tokens(folder: Path) -> list[SoftwareToken]:
    """The tokens in the store of a DRM that does not run."""
    store = open_store(folder / "drm" / "store", tables=DRM_TABLES, schema_version=SCHEMA_VERSION)
    tokens = store.read(read_tokens)
    await store.close()
    return tokens


async def archived_records(folder: Path) -> list[ArchivedKeyRecord]:
    store = open_store(folder / "drm" / "store", tables=DRM_TABLES, schema_version=SCHEMA_VERSION)
    try:
        rows = await store.view(lambda txn: scan_records(txn, after=None, limit=100))
    finally:
        await store.close()
    return [record for _, record in rows]


def open_shares(folder: Path, token: SoftwareToken) -> list[Share]:
    """What the three agents could do together."""
    shares = []
    for agent in ("alice", "bob", "carol"):
        pem = (folder / "identities" / "agent" / agent / "share-key.pem").read_bytes()
        share_key = ShareKey.from_pem(pem, password=None)
        shares.append(open_share(token, share_key, f"spiffe://example.org/agent/{agent}"))
    return shares


async def test_a_quorum_of_shares_opens_what_was_archived_and_one_fewer_opens_nothing(
    deployment_folder: Path,
) -> None:
    """P1, P4: what lies in the archive is the user's key, and only a quorum gets at it."""
    keys = {}
    async with running(deployment_folder) as deployment, deployment.client() as client:
        for key_type in ARCHIVED_TYPES:
            prepared = await client.prepare(
                common_name="Alice Example", email="alice@example.org", encryption_key_type=key_type
            )
            await client.submit(prepared)
            keys[prepared.statement.raw] = pkcs8(prepared.encryption_key)
    token = (await storage_tokens(deployment_folder))[0]
    shares = open_shares(deployment_folder, token)
    records = await archived_records(deployment_folder)
    assert len(records) == len(ARCHIVED_TYPES)
    for pair in combinations(shares, 2):
        storage_key = open_software_token(token, pair)
        for record in records:
            assert storage_key.open(record.sealed_key, record.leaf) == keys[record.statement]
    for share in shares:
        with pytest.raises(QuorumNotReachedError):
            open_software_token(token, [share])
        with pytest.raises(QuorumNotReachedError):
            open_software_token(token, [share, share])
    with pytest.raises(SealError):
        storage_key.open(records[0].sealed_key, records[1].leaf)


async def test_nothing_on_the_disks_of_drm_and_rm_holds_a_private_key(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment, deployment.client() as client:
        prepared = await client.prepare(
            common_name="Alice Example", email="alice@example.org", encryption_key_type=KeyType.X25519
        )
        await client.submit(prepared)
    secret = prepared.encryption_key.private_bytes_raw()
    for service in ("rm", "cm", "drm"):
        for path in (deployment_folder / service).rglob("*"):
            if path.is_file():
                assert secret not in path.read_bytes(), path
    envelope_marker = prepared.statement.sha256
    rm_store = (deployment_folder / "rm" / "store" / "data.mdb").read_bytes()
    assert envelope_marker in rm_store  # the leaf names the statement; the wrapped key is nowhere
    assert b"PRIVATE KEY" not in rm_store


async def test_twenty_submissions_at_once_have_one_outcome(deployment: Deployment) -> None:
    """P9: whoever retries early joins; the archive holds one key and the CA issued one pair."""
    async with deployment.client() as client, deployment.client() as another:
        prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
        outcomes = await asyncio.gather(*((client if i % 2 else another).submit(prepared) for i in range(20)))
    assert len({outcome.signing_certificate for outcome in outcomes}) == 1
    assert len({outcome.encryption_certificate for outcome in outcomes}) == 1
    assert len({outcome.receipt.index for outcome in outcomes}) == 1
    held = await holdings(deployment.home())
    assert (held.certificates, held.keys) == (2, 1)


async def test_an_outcome_can_be_asked_for_and_only_ones_own(deployment: Deployment) -> None:
    async with deployment.client() as client:
        prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
        with pytest.raises(KeyarkError) as caught:
            await client.outcome(prepared)
        assert caught.value.reason == "NOT_FOUND"
        enrolled = await client.submit(prepared)
        assert (await client.outcome(prepared)).signing_certificate == enrolled.signing_certificate


@pytest.mark.parametrize(
    ("role", "old", "new", "rule"),
    [
        ("rm", 'domains = ["example.org"]', 'domains = ["example.com"]', "who-enrolls-whom"),
        ("rm", 'common_names = [".+"]', 'common_names = ["Nobody"]', "who-enrolls-whom"),
        ("cm", "max_days = 825", "max_days = 1", "issued-validity"),
        ("drm", '"ec-p256", ', "", "archived-key-types"),
    ],
)
async def test_a_shipped_rule_of_every_subsystem_rejects(
    deployment_folder: Path, role: str, old: str, new: str, rule: str
) -> None:
    """P2: where any of the three refuses, no certificate exists."""
    edit(deployment_folder / role / f"{role}.toml", old, new)
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            with pytest.raises(PolicyRejectedError) as caught:
                await client.enroll(common_name="Alice Example", email="alice@example.org")
        assert [(v.subsystem, v.rule) for v in caught.value.violations] == [(role, rule)]
        held = await holdings(deployment.home(), refused_by=role)
    assert held.certificates == 0
    assert held.keys == (1 if role == "cm" else 0)  # archived, and UNCERTIFIED for good
    assert held.rejections == ["POLICY_REJECTED"]


async def test_a_service_that_is_away_fails_the_enrollment_and_a_retry_completes_it(
    deployment_folder: Path,
) -> None:
    """P2, P9: the CM is down when the key is archived already; the same request goes through once it is back."""
    async with running(deployment_folder) as deployment, deployment.client() as client:
        prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
        await deployment.services["cm"].server.drain(0)
        with pytest.raises(UnavailableError):
            await client.submit(prepared)
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            assert isinstance(await client.submit(prepared), Enrolled)
        held = await holdings(deployment.home())
    assert (held.certificates, held.keys) == (2, 1)


async def test_what_the_cm_refused_after_archival_stays_refused_and_is_enrolled_anew(
    deployment_folder: Path,
) -> None:
    """P2: neither a retry nor another policy certifies the key that was archived for a refused request."""
    config = deployment_folder / "cm" / "cm.toml"
    edit(config, "max_days = 825", "max_days = 1")
    async with running(deployment_folder) as deployment, deployment.client() as client:
        refused = await client.prepare(common_name="Alice Example", email="alice@example.org")
        with pytest.raises(PolicyRejectedError, match="730"):
            await client.submit(refused)
    edit(config, "max_days = 1", "max_days = 825")
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            with pytest.raises(PolicyRejectedError, match="730"):
                await client.submit(refused)
            assert (await holdings(deployment.home())).certificates == 0
            again = await client.prepare(common_name="Alice Example", email="alice@example.org")
            assert isinstance(await client.submit(again), Enrolled)
        held = await holdings(deployment.home())
    assert (held.certificates, held.keys) == (2, 2)


def spellings(secret: bytes) -> Iterator[str]:
    """How a secret could stand in a text."""
    yield secret.hex()
    yield base64.b64encode(secret).decode().rstrip("=")
    yield repr(secret)[2:-1]


async def test_no_private_key_appears_in_logs_errors_or_entries(
    deployment: Deployment, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """P10: after a mismatch, a garbled envelope and a success."""
    caplog.set_level(logging.DEBUG)
    wrong = generate(KeyType.X25519)
    async with enrolling(deployment.home()) as enroller:
        good = generate(KeyType.X25519)
        requests = (
            enroller.request(encryption_key=good, private_key=pkcs8(wrong)),
            enroller.request(encryption_key=good, envelope=pkcs8(good)),
            enroller.request(encryption_key=good),
        )
        said = [str((await enroller.send(request))[0]) for request in requests]
    said += [caplog.text, *capfd.readouterr()]
    said.append(str(await holdings(deployment.home())))
    for secret in (good.private_bytes_raw(), wrong.private_bytes_raw()):
        for spelling in spellings(secret):
            assert all(spelling not in text for text in said)


async def test_a_token_altered_on_disk_is_found(deployment_folder: Path) -> None:
    store = open_store(deployment_folder / "drm" / "store", tables=DRM_TABLES, schema_version=SCHEMA_VERSION)
    key, value = store.read(lambda txn: txn.last(TOKENS))
    await store.update(lambda txn: txn.put(TOKENS, key, value[:100]))
    await store.close()
    with pytest.raises(TokenError):
        async with running(deployment_folder):
            pass


async def test_lax_permissions_stop_a_service(deployment_folder: Path) -> None:
    (deployment_folder / "rm" / "identity-key.pem").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        async with running(deployment_folder):
            pass


async def test_a_leaf_altered_on_disk_is_found_and_named(deployment_folder: Path) -> None:
    """P6: `check` recomputes the whole log from its leaves."""
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await client.enroll(common_name="Alice Example", email="alice@example.org")
    config = load_config(deployment_folder / "drm" / "drm.toml", DrmConfig)

    def check() -> list[str]:
        return maintenance.check(
            "drm", config, tables=DRM_TABLES, schema_version=SCHEMA_VERSION, check_keys=list
        )

    assert "drm is ready to run" in await asyncio.to_thread(check)
    await _alter_last_byte(deployment_folder, LEAVES)
    with pytest.raises(LogCorruptError) as caught:
        await asyncio.to_thread(check)
    assert "index" in caught.value.metadata


async def test_an_archived_key_altered_on_disk_does_not_open(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment, deployment.client() as client:
        await client.enroll(common_name="Alice Example", email="alice@example.org")
    record = (await archived_records(deployment_folder))[0]
    token = (await storage_tokens(deployment_folder))[0]
    storage_key = open_software_token(token, open_shares(deployment_folder, token)[:2])
    storage_key.open(record.sealed_key, record.leaf)
    for position in range(0, len(record.sealed_key.ciphertext), 97):
        altered = SealedKey()
        altered.CopyFrom(record.sealed_key)
        data = bytearray(altered.ciphertext)
        data[position] ^= 1
        altered.ciphertext = bytes(data)
        with pytest.raises(SealError):
            storage_key.open(altered, record.leaf)


async def _alter_last_byte(folder: Path, table: str) -> None:
    store = open_store(folder / "drm" / "store", tables=DRM_TABLES, schema_version=SCHEMA_VERSION)
    key, value = store.read(lambda txn: txn.last(table))
    await store.update(lambda txn: txn.put(table, key, value[:-1] + bytes([value[-1] ^ 1])))
    await store.close()
