"""The demo's second half: Alice's key is lost, Bob and Carol approve, and her mail is readable again."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from keyark.cli.demo.story import DemoFailedError, Story, openssl
from keyark.client.access.passwords import new_password
from keyark.client.access.sessions import open_session
from keyark.client.enrollment.folder import KeyFormat
from keyark.client.recovery.client import RecoveryClient
from keyark.client.recovery.delivery import KeyFiles
from keyark.client.trust.receipts import archive_verifier, list_entries
from keyark.rpc.calling.channels import call
from keyark.v1.audit_pb2 import AuditEvent, EventType, GetInclusionProofRequest
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.recovery_pb2 import CeremonyState
from keyark.x509.serials import serial_text

REASON = "Alice's disk broke"


async def tell_recovery(story: Story, home: Path, out: Path, *, key_id: bytes) -> None:
    """Lose the key, bring it back by two of three agents, and read the message with it."""
    (out / "encryption-key.pem").unlink()
    story.step(7, "request")
    story.say("Alice's encryption key is gone: encryption-key.pem is deleted")
    async with AsyncExitStack() as stack:
        alice, bob, carol = [
            await stack.enter_async_context(RecoveryClient.open(home, identity=f"agent/{name}"))
            for name in ("alice", "bob", "carol")
        ]
        asked = await alice.request_keys([key_id], reason=REASON)
        story.fact("ceremony_id", asked.ceremony_id.hex())
        story.fact("ceremony_digest", asked.request.digest.hex())
        story.fact("opened_log_index", asked.opened.index)

        story.step(8, "approve")
        for name, agent in (("bob", bob), ("carol", carol)):
            seen = await agent.review(asked.ceremony_id)
            owner = seen.owners[0].details
            story.say(
                f"{name} sees, proven by the log: {seen.request.requester} asks for the key of "
                f"{owner.common_name} <{owner.email}>: {seen.request.message.reason}"
            )
            state = CeremonyState.Name((await agent.approve(seen)).state).removeprefix("CEREMONY_STATE_")
            story.fact(f"state_after_{name}", state)

        story.step(9, "collect")
        files = KeyFiles(out=out / "recovered.p12", key_format=KeyFormat.P12, password=new_password())
        keys = await alice.collect(asked.ceremony_id)
        files.write(keys)
        await alice.acknowledge(asked.ceremony_id)
        story.fact("recovered_serial", serial_text(keys[0].certificate.serial_number))
        story.say("the PKCS#12 was built here; the archive has erased what it sealed for alice")
    await _show_steps(story, home, asked.ceremony_id)
    _read_message(story, out, files.password)


async def _show_steps(story: Story, home: Path, ceremony_id: bytes) -> None:
    """Find every step in the DRM's log, and verify that it is under a signed checkpoint."""
    async with open_session(home, "drm", identity="auditor/auditor") as session:
        stub, verifier = AuditServiceStub(session.channel), archive_verifier(session.home)
        indices = [
            entry.index
            async for entry in list_entries(session)
            if AuditEvent.FromString(entry.event.leaf).ceremony_id == ceremony_id
        ]
        for index in indices:
            answer = await call(stub.GetInclusionProof, GetInclusionProofRequest(index=index), timeout=30)
            proven = verifier.verify_entry(answer.proof)
            name = EventType.Name(proven.event.type).removeprefix("EVENT_TYPE_").lower()
            key = name if f"logged_{name}" not in story.facts else f"{name}_again"
            story.fact(
                f"logged_{key}", f"log entry {index}, proven to be in the tree of {proven.checkpoint.size}"
            )


def _read_message(story: Story, out: Path, password: bytes) -> None:
    story.title("openssl")
    key = openssl(
        "pkcs12", "-in", str(out / "recovered.p12"), "-nodes", "-nocerts", "-passin", "stdin",
        data=password + b"\n",
    )  # fmt: skip
    decrypted = openssl(
        "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(out / "message.cms"),
        "-recip", str(out / "encryption.pem"), "-inkey", "/dev/stdin",
        data=key,
    )  # fmt: skip
    if decrypted.decode().strip() != story.facts["message"]:
        raise DemoFailedError("The message did not come back with the recovered key.")
    story.fact("message_read_with_recovered_key", decrypted.decode().strip())
