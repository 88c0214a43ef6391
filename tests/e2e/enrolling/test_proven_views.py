"""P6: keys and storage keys are shown as receipts and pins prove them; what only the archive says is marked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from keyark.cli.main import main
from keyark.client import EnrollmentClient, PendingApprovalError
from keyark.custody.storage import HybridPrivateKey
from keyark.statements.enrollment import Statement
from keyark.v1 import recovery_pb2, registration_pb2
from keyark.v1.approval_pb2 import ApprovalStatement
from keyark.v1.recovery_pb2_grpc import add_KeyRecoveryServiceServicer_to_server
from keyark.v1.registration_pb2_grpc import add_RegistrationAdminServiceServicer_to_server
from keyark.v1.statement_pb2 import EnrollmentStatement
from tests.e2e.running.test_doctor import about, findings
from tests.support.running.deployment import Deployment, edit, running
from tests.support.stories.queue import defer
from tests.support.stories.recovering import REASON, agents, approve, lose_key
from tests.support.stories.relays import channel, relaying, service_identity

FACES = {
    "drm": ("agent/alice", recovery_pb2, "KeyRecoveryService", add_KeyRecoveryServiceServicer_to_server),
    "rm": (
        "officer/officer",
        registration_pb2,
        "RegistrationAdminService",
        add_RegistrationAdminServiceServicer_to_server,
    ),
}


@asynccontextmanager
async def lying(deployment: Deployment, lie: Callable[[Any], None], role: str = "drm") -> AsyncIterator[None]:
    """A service in hostile hands: ``lie`` alters every answer to an agent, or to an officer."""
    name, module, service, add = FACES[role]
    address, folder = getattr(deployment.home().config, role), deployment.folder
    person = deployment.home().identity(name, lambda _: None)

    def alter(method: str, request: Any, response: Any) -> Any:
        lie(response)
        return response

    upstream = channel(address, person, role)
    services = [(module.DESCRIPTOR.services_by_name[service], add)]
    async with relaying(
        identity=service_identity(folder, role), upstream=upstream, services=services, alter=alter
    ) as server:
        honest, hostile = f'{role} = "{address}"', f'{role} = "127.0.0.1:{server.port}"'
        edit(folder / "keyark.toml", honest, hostile)
        try:
            yield
        finally:
            edit(folder / "keyark.toml", hostile, honest)
    await upstream.close()


async def keyark(folder: Path, *words: str) -> str:
    arguments = [*words, "--home", str(folder)]
    done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    return done.output


async def test_a_key_is_shown_as_its_receipt_proves_it(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    key_id, folder = lost.key_id.hex(), deployment.folder
    honest = (await keyark(folder, "keys", "show", key_id)).splitlines()
    assert honest[:2] == [f"key         {key_id}", "owner       Alice Example <alice@example.org>"]
    assert honest[-3:-1] == [
        "unproven    the archive says this without proof:",
        "  state     CERTIFIED",
    ]
    assert "CERTIFIED" in await keyark(folder, "keys", "show", key_id, "--as", "auditor/auditor")
    facts = json.loads(await keyark(folder, "keys", "show", key_id, "--json"))
    assert {"state", "certificate_serial"} <= set(facts["unproven"])
    assert not {"common_name", "email", "key_id"} & set(facts["unproven"])
    for change in (
        {"common_name": "Bob Example"},
        {"email": "bob@example.org"},
        {"caller": "spiffe://example.org/client/other"},
        {"archived_time_us": 1},
        {"log_index": 7},
        {"key_id": bytes(32)},
    ):
        async with lying(deployment, lambda answer, change=change: _set(answer.key, change)):
            assert "UNEXPECTED_ANSWER" in await keyark(folder, "keys", "show", key_id), change
    async with lying(deployment, lambda answer: answer.ClearField("receipt")):
        assert "RECEIPT_FORMAT" in await keyark(folder, "keys", "show", key_id)


def _set(message: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(message, name, value)


async def test_storage_keys_are_told_apart_by_what_the_agent_pins(deployment: Deployment) -> None:
    folder = deployment.folder
    for identity, pinned in (("agent/alice", True), ("auditor/auditor", False)):
        words = ("agents", "list", "--as", identity)
        assert ("[as pinned here]" in await keyark(folder, *words)) is pinned
        assert json.loads(await keyark(folder, *words, "--json"))[0]["pinned"] is pinned
    key = HybridPrivateKey.generate().public_key.to_bytes()
    for lie in (
        lambda answer: _set(answer.storage_keys[0], {"public_key": key}),
        lambda answer: _set(answer.storage_keys[0], {"quorum": 1}),
        lambda answer: answer.storage_keys[0].shares.pop(),
        lambda answer: _set(
            answer.storage_keys[0].shares[0].holder, {"agent": "spiffe://example.org/agent/eve"}
        ),
    ):
        async with lying(deployment, lambda answer, lie=lie: hasattr(answer, "storage_keys") and lie(answer)):
            told = await keyark(folder, "storage-key", "list")
            assert "[unproven: differs from what this home pins]" in told
            assert "as pinned here" not in told


async def test_an_auditor_looks_at_ceremonies_as_verified_as_an_agent(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob") as (alice, bob):
        asked = (await alice.request_keys([lost.key_id], reason=REASON)).ceremony_id
        await approve(asked, bob)
    auditor = ("--as", "auditor/auditor")
    assert asked.hex() in await keyark(deployment.folder, "recover", "list", *auditor)
    shown = await keyark(deployment.folder, "recover", "show", asked.hex(), *auditor)
    assert "decided     agent/bob approved" in shown.splitlines()
    assert shown == await keyark(deployment.folder, "recover", "show", asked.hex(), "--as", "agent/carol")


async def test_lists_say_whose_word_they_are(deployment: Deployment) -> None:
    await lose_key(deployment)
    for words, service in (
        (("keys", "list"), "DRM"),
        (("recover", "list"), "DRM"),
        (("enrollments", "list"), "RM"),
        (("certificates", "list"), "CM"),
    ):
        told = await keyark(deployment.folder, *words)
        assert told.splitlines()[-1].startswith(f"unproven    every line is the word of the {service} alone")


async def test_an_officer_approves_the_request_that_was_looked_at_and_no_other(
    deployment_folder: Path,
) -> None:
    """P5: the RM in hostile hands shows another request under the id that the officer named."""
    async with running(defer(deployment_folder)) as deployment, deployment.client() as client:
        wanted, other = [await deferred(client, name) for name in ("Alice Guest", "Mallory Guest")]
        folder, request = deployment.folder, wanted.enrollment_id.hex()

        def swap(answer: Any) -> None:
            answer.enrollment.enrollment_id, answer.enrollment.statement = other.enrollment_id, other.raw

        def swap_statement(answer: Any) -> None:
            answer.enrollment.statement = other.raw

        for lie in (swap, swap_statement):
            async with lying(deployment, lie, "rm"):
                for command in ("show", "approve"):
                    assert "UNEXPECTED_ANSWER" in await keyark(folder, "enrollments", command, request)
        renamed = EnrollmentStatement.FromString(wanted.raw)
        renamed.common_name = "Mallory Guest"
        same_id = renamed.SerializeToString(deterministic=True)

        def rename(answer: Any) -> None:
            answer.enrollment.statement = same_id

        shown = await keyark(folder, "enrollments", "show", request)
        assert f"statement   {wanted.sha256.hex()}" in shown
        bound = ("enrollments", "approve", request, "--statement", wanted.sha256.hex())
        async with lying(deployment, rename, "rm"):
            assert "UNEXPECTED_ANSWER" in await keyark(folder, *bound)
        assert "APPROVED" not in await keyark(folder, "enrollments", "list")
        assert "ISSUED" in await keyark(folder, *bound)


async def test_who_approved_is_read_from_the_officers_signed_word(deployment_folder: Path) -> None:
    async with running(defer(deployment_folder)) as deployment, deployment.client() as client:
        statement = await deferred(client, "Alice Guest")
        folder, request = deployment.folder, statement.enrollment_id.hex()
        await deployment.services["cm"].server.drain(0)  # so that it is approved, and stays so
        await keyark(folder, "enrollments", "approve", request, "--name", "Alice G.")
        told = (await keyark(folder, "enrollments", "show", request)).splitlines()
        proven = told[: told.index("unproven    the RM says this without proof:")]
        assert any(line.endswith("by spiffe://example.org/officer/officer") for line in proven)
        assert "edited      common name: Alice G." in proven
        assert "  state     APPROVED" in told[len(proven) :]

        def another_edit(answer: Any) -> None:
            shown = [answer.enrollment] if hasattr(answer, "enrollment") else answer.enrollments
            for enrollment in shown:
                words = ApprovalStatement.FromString(enrollment.review.approval.statement)
                words.common_name = "Mallory; rm -rf"
                enrollment.review.approval.statement = words.SerializeToString(deterministic=True)

        async with lying(deployment, another_edit, "rm"):
            assert "APPROVAL_SIGNATURE" in await keyark(folder, "enrollments", "show", request)
            found = about(await findings(deployment, later=3600), "was approved but not issued")
            assert [
                " show " in finding.command and "Mallory" not in finding.command for finding in found
            ] == [True]


async def deferred(client: EnrollmentClient, name: str) -> Statement:
    """Submit a request that waits for an officer; returns its statement."""
    prepared = await client.prepare(common_name=name, email="guest@example.org")
    with pytest.raises(PendingApprovalError):
        await client.submit(prepared)
    return prepared.statement
