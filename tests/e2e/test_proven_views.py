"""P6: keys and storage keys are shown as receipts and pins prove them; what only the archive says is marked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from keyark.cli.main import main
from keyark.crypto.storage import HybridPrivateKey
from keyark.v1 import recovery_pb2
from keyark.v1.recovery_pb2_grpc import add_KeyRecoveryServiceServicer_to_server
from tests.support.deployment import Deployment, edit
from tests.support.recovering import lose_key
from tests.support.relays import channel, relaying, service_identity

SERVICES = [
    (recovery_pb2.DESCRIPTOR.services_by_name["KeyRecoveryService"], add_KeyRecoveryServiceServicer_to_server)
]


@asynccontextmanager
async def lying(deployment: Deployment, lie: Callable[[Any], None]) -> AsyncIterator[None]:
    """The DRM in hostile hands: ``lie`` alters every answer to an agent."""
    drm, folder = deployment.home().config.drm, deployment.folder
    agent = deployment.home().identity("agent/alice", lambda _: None)

    def alter(method: str, request: Any, response: Any) -> Any:
        lie(response)
        return response

    upstream = channel(drm, agent, "drm")
    async with relaying(
        identity=service_identity(folder, "drm"), upstream=upstream, services=SERVICES, alter=alter
    ) as server:
        edit(folder / "keyark.toml", f'drm = "{drm}"', f'drm = "127.0.0.1:{server.port}"')
        try:
            yield
        finally:
            edit(folder / "keyark.toml", f'drm = "127.0.0.1:{server.port}"', f'drm = "{drm}"')
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
        "unproven    the archive says, and nothing here proves it:",
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
            assert "[unproven: not what this home pins]" in told
            assert "as pinned here" not in told


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
