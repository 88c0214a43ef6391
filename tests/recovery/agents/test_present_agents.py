"""P4, P6, P7: a certificate of the role agent is not enough; those act as agents who hold shares now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from drm_service.ceremonies.records import find_ceremony, put_ceremony
from drm_service.ceremonies.room import MAX_OPEN
from drm_service.ceremonies.servicer import ACTING, METHODS, READING
from drm_service.config import DrmConfig
from drm_service.records import SCHEMA_VERSION, TABLES
from keyark.client import KeyarkError
from keyark.client.access.sessions import open_session
from keyark.client.administration.lists import activate_key, deactivate_key, get_key, list_keys
from keyark.config import load_config
from keyark.custody.agents import AgentShareKey
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.initialize import DeploymentPlan, make_person
from keyark.files import write_file
from keyark.identity.spiffe import SpiffeId
from keyark.rpc.calling.channels import call
from keyark.store import Store, open_store
from keyark.v1 import recovery_pb2
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub
from tests.support.running.deployment import Deployment, edit, running
from tests.support.stories.recovering import (
    REASON,
    agents,
    approval,
    approve,
    ceremony_steps,
    drm_log,
    identity_file,
    lose_key,
    raw_stub,
    revoke,
    send_approval,
    state,
)


def add_agents(folder: Path, *names: str) -> None:
    """Have the authority issue certificates of the role agent; nobody gives their holders shares."""
    authority, plan = DeploymentAuthority.load(folder / "authority"), DeploymentPlan(folder=folder)
    for name in names:
        make_person(plan, authority, SpiffeId("example.org", f"agent/{name}"))
        pins = identity_file(folder, "alice", "archive-pins.json").read_bytes()
        write_file(identity_file(folder, name, "archive-pins.json"), pins, mode=0o600)


def share_keys(folder: Path, *names: str) -> list[AgentShareKey]:
    return [AgentShareKey.from_json(identity_file(folder, n, "share-key.json").read_text()) for n in names]


async def assert_acts_nowhere(stub: KeyRecoveryServiceStub, *, methods: tuple[str, ...] = METHODS) -> None:
    requests = recovery_pb2.DESCRIPTOR.services_by_name["KeyRecoveryService"].methods_by_name
    for method in methods:
        request = getattr(recovery_pb2, requests[method].input_type.name)()
        with pytest.raises(KeyarkError) as refused:
            await call(getattr(stub, method), request, timeout=30)
        assert refused.value.reason in ("NO_SHARE", "PERMISSION_DENIED"), method


async def refusals(deployment: Deployment, name: str) -> list[tuple[str, str]]:
    """What the log says that somebody was refused: method and reason."""
    return [
        (details.method.rpartition("/")[2], details.reason)
        for what, _, details in await drm_log(deployment)
        if what == "REQUEST_REJECTED" and details.caller.endswith(f"/{name}")
    ]


async def refused(awaitable: Any) -> str:
    with pytest.raises(KeyarkError) as refusal:
        await awaitable
    return refusal.value.reason


async def test_an_agents_certificate_without_a_share_acts_nowhere_and_the_log_says_so(
    deployment_folder: Path,
) -> None:
    add_agents(deployment_folder, "mallory")
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "mallory", "bob") as (mallory, bob):
            await assert_acts_nowhere(raw_stub(mallory))
            assert await refusals(deployment, "mallory") == [(method, "NO_SHARE") for method in METHODS]
            assert await refused(mallory.request_keys([lost.key_id], reason=REASON)) == "NO_SHARE"
            assert await refused(deactivate_key(mallory.session, lost.key_id, reason="x")) == "NO_SHARE"
            assert await refused(mallory.rotate_storage_key(reason="x")) == "NO_SHARE"
            assert [c async for c in bob.ceremonies()] == []


async def test_auditors_read_what_agents_read_and_do_nothing(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice") as (alice,):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
    async with open_session(deployment.home(), "drm", identity="auditor/auditor") as session:
        stub = KeyRecoveryServiceStub(session.channel)
        assert [key.key_id async for key in list_keys(session)] == [lost.key_id]
        assert (await get_key(session, lost.key_id)).email == "alice@example.org"
        found = await call(
            stub.GetCeremony, recovery_pb2.GetCeremonyRequest(ceremony_id=asked.ceremony_id), timeout=30
        )
        listed = await call(stub.ListStorageKeys, recovery_pb2.ListStorageKeysRequest(), timeout=30)
        shares = [s for key in (*found.ceremony.storage_keys, *listed.storage_keys) for s in key.shares]
        assert shares
        assert {share.ciphertext for share in shares} == {b""}
        assert set(READING) | set(ACTING) == set(METHODS)
        await assert_acts_nowhere(stub, methods=ACTING)
    assert {method for method, _ in await refusals(deployment, "auditor")} == set(ACTING)


async def test_a_former_agent_does_nothing_and_what_it_asked_for_goes_to_nobody(
    deployment_folder: Path,
) -> None:
    add_agents(deployment_folder, "dave")
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol", "dave") as (alice, bob, carol, dave):
            waiting = await bob.request_keys([lost.key_id], reason="approved, and not collected")
            assert state(await approve(waiting.ceremony_id, alice, carol)) == "READY"
            still_open = await bob.request_keys([lost.key_id], reason="nobody approved yet")
            others = await carol.request_keys([lost.key_id], reason=REASON)
            await approve(others.ceremony_id, alice)

            new = share_keys(deployment_folder, "alice", "carol", "dave")
            change = await alice.change_agents(new, 2, reason="bob leaves")
            assert state(await approve(change.ceremony_id, bob, carol)) == "COMPLETED"

            await assert_acts_nowhere(raw_stub(bob))
            assert await refused(bob.collect(waiting.ceremony_id)) == "NO_SHARE"
            assert await refused(activate_key(bob.session, lost.key_id, reason="x")) == "NO_SHARE"
            assert {m for m, reason in await refusals(deployment, "bob") if reason == "NO_SHARE"} == set(
                METHODS
            )

            for ceremony in (waiting, still_open):
                ended = await alice.review(ceremony.ceremony_id)
                assert (state(ended), ended.view.failure.message) == (
                    "FAILED",
                    "spiffe://example.org/agent/bob is no longer a recovery agent; a current agent has to ask again.",
                )
                steps = await ceremony_steps(deployment, ceremony.ceremony_id)
                assert steps[-1] == "RECOVERY_CLOSED"
            # those of present agents go on, asked anew of the present agents
            assert state(await approve(others.ceremony_id, alice, dave)) == "READY"
    async with store_of(deployment_folder) as store:
        assert not store.read(lambda txn: find_ceremony(txn, waiting.ceremony_id)).recovered


async def test_what_was_recovered_for_a_former_agent_is_erased_at_the_start_if_not_before(
    deployment_folder: Path,
) -> None:
    """The DRM may be killed right after it wrote the new agents: the row is put back as it was then."""
    add_agents(deployment_folder, "dave")
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol") as (a, b, c),
    ):
        lost = await lose_key(deployment)
        waiting = await b.request_keys([lost.key_id], reason=REASON)
        await approve(waiting.ceremony_id, a, c)
    async with store_of(deployment_folder) as store:
        ready = store.read(lambda txn: find_ceremony(txn, waiting.ceremony_id))
    assert len(ready.recovered) == 1
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol") as (a, b, c),
    ):
        new = share_keys(deployment_folder, "alice", "carol", "dave")
        change = await a.change_agents(new, 2, reason="bob leaves")
        await approve(change.ceremony_id, b, c)
    async with store_of(deployment_folder) as store:
        await store.update(lambda txn: put_ceremony(txn, ready))
    async with running(deployment_folder) as deployment, agents(deployment, "alice") as (a,):
        assert state(await a.review(waiting.ceremony_id)) == "FAILED"
    async with store_of(deployment_folder) as store:
        assert not store.read(lambda txn: find_ceremony(txn, waiting.ceremony_id)).recovered


@asynccontextmanager
async def store_of(folder: Path) -> AsyncIterator[Store]:
    """The store of a DRM that is stopped."""
    path = load_config(folder / "drm" / "drm.toml", DrmConfig).store.path
    store = open_store(path, tables=TABLES, schema_version=SCHEMA_VERSION)
    try:
        yield store
    finally:
        await store.close()


async def test_a_full_room_of_one_agent_keeps_nobody_else_from_asking(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob") as (alice, bob):
        for number in range(MAX_OPEN):
            await alice.request_keys([lost.key_id], reason=f"{number}")
        assert await refused(alice.request_keys([lost.key_id], reason="one more")) == "AGENT_QUOTA"
        assert await refused(alice.rotate_storage_key(reason="one more")) == "AGENT_QUOTA"
        assert state(await bob.request_keys([lost.key_id], reason=REASON)) == "OPEN"
        everyone = share_keys(deployment.folder, "alice", "bob", "carol")
        assert state(await alice.change_agents(everyone, 2, reason="has a place of its own")) == "OPEN"
    reasons = await refusals(deployment, "alice")
    assert reasons == [("RequestCeremony", "AGENT_QUOTA")] * 2


async def test_nothing_that_others_opened_holds_up_a_change_of_agents(deployment_folder: Path) -> None:
    """An agent who is to leave keeps a change of agents and a new storage key open, and decides on nothing else."""
    add_agents(deployment_folder, "dave")
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol", "dave") as (alice, bob, carol, dave),
    ):
        hers = await alice.change_agents(
            share_keys(deployment_folder, "alice", "bob", "carol"), 2, reason="in the way"
        )
        rotation = await alice.rotate_storage_key(reason="in the way")
        assert await refused(alice.change_agents(hers.request.agents, 2, reason="x")) == "ANOTHER_CEREMONY"
        change = await bob.change_agents(
            share_keys(deployment_folder, "bob", "carol", "dave"), 2, reason="alice leaves"
        )
        assert state(await approve(change.ceremony_id, carol, alice)) == "COMPLETED"
        for ended in (hers, rotation):
            assert state(await dave.review(ended.ceremony_id)) == "FAILED"
        again = await dave.rotate_storage_key(reason="alice left")
        assert state(await approve(again.ceremony_id, bob, carol)) == "COMPLETED"


async def test_a_new_storage_key_that_was_open_is_made_anew_for_the_new_agents(
    deployment_folder: Path,
) -> None:
    add_agents(deployment_folder, "dave")
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol", "dave") as (alice, bob, carol, dave),
    ):
        rotation = await carol.rotate_storage_key(reason="yearly")
        await approve(rotation.ceremony_id, bob)
        new = share_keys(deployment_folder, "alice", "carol", "dave")
        change = await alice.change_agents(new, 2, reason="bob leaves")
        assert state(await approve(change.ceremony_id, bob, carol)) == "COMPLETED"
        anew = await dave.review(rotation.ceremony_id)
        assert (state(anew), anew.view.openings) == ("OPEN", 2)
        assert anew.view.new_storage_key.public_key != rotation.view.new_storage_key.public_key
        assert state(await approve(rotation.ceremony_id, alice, dave)) == "COMPLETED"


async def test_wrong_shares_start_only_so_many_workers(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        seen = await bob.review(asked.ceremony_id)
        wrong = approval(bob, seen)
        wrong.shares[0].ciphertext = bytes(1200)
        reasons = [await refused(send_approval(bob, wrong)) for _ in range(22)]
        assert reasons[20:] == ["AGENT_QUOTA"] * 2
        assert "AGENT_QUOTA" not in reasons[:20]
        assert await refused(bob.approve(seen)) == "AGENT_QUOTA"
        assert state(await approve(asked.ceremony_id, carol)) == "OPEN"


async def test_requests_are_counted_before_anything_of_them_is_verified(deployment_folder: Path) -> None:
    edit(deployment_folder / "drm" / "drm.toml", "requests_per_hour = 1000", "requests_per_hour = 3")
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob") as (alice, bob):
            garbage = recovery_pb2.RequestCeremonyRequest()
            for _ in range(3):
                assert (
                    await refused(call(raw_stub(alice).RequestCeremony, garbage, timeout=30))
                    == "INVALID_INPUT"
                )
            assert await refused(alice.request_keys([lost.key_id], reason=REASON)) == "AGENT_QUOTA"
            assert state(await bob.request_keys([lost.key_id], reason=REASON)) == "OPEN"
        assert ("RequestCeremony", "AGENT_QUOTA") in await refusals(deployment, "alice")


async def test_an_agent_who_was_revoked_since_it_was_asked_for_gets_no_share(deployment_folder: Path) -> None:
    add_agents(deployment_folder, "dave")
    async with running(deployment_folder) as deployment:
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            with pytest.raises(KeyarkError, match="twice"):
                await alice.change_agents(
                    share_keys(deployment_folder, "alice", "bob", "bob"), 2, reason=REASON
                )
            asked = await alice.change_agents(
                share_keys(deployment_folder, "alice", "bob", "dave"), 2, reason=REASON
            )
            await approve(asked.ceremony_id, bob)
            await revoke(deployment, "agent/dave")
            assert state(await approve(asked.ceremony_id, carol)) == "FAILED"
        assert "AGENTS_CHANGED" not in await ceremony_steps(deployment, asked.ceremony_id)
        async with agents(deployment, "carol") as (carol,):
            with pytest.raises(KeyarkError):  # her client knows now who was revoked
                await approve(asked.ceremony_id, carol)
