"""`make demo`: the whole story in a terminal, on a deployment of its own in a temporary folder.

What it prints comes from RPC answers and from the subsystems' logs; with ``--facts FILE`` it writes the same values as
JSON, and the artefacts stay in ``--keep DIR``, so that a test can hold one against the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from keyark.cli.demo.recovery import tell_recovery
from keyark.cli.demo.story import DemoFailedError, Story, openssl
from keyark.cli.output import describe_error, say_aside
from keyark.client.access.home import Home
from keyark.client.access.sessions import open_session
from keyark.client.enrollment.client import EnrollmentClient
from keyark.client.enrollment.folder import EnrollmentFolder
from keyark.client.enrollment.prepared import PreparedEnrollment
from keyark.client.trust.receipts import list_entries
from keyark.client.trust.verification import Enrolled
from keyark.custody.harden import disable_core_dumps
from keyark.deployment.ports import free_ports
from keyark.errors import KeyarkError
from keyark.programs import python_command
from keyark.text.console import SafeConsole
from keyark.text.terminal import escaped_streams
from keyark.transparency.merkle import leaf_hash
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.registration_pb2 import EnrollmentState

MESSAGE: Final = b"Alice, the keys to the archive are where we left them.\n"
LINK_ATTEMPTS: Final = 50
START_SECONDS: Final = 60.0


@click.command()
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep deployment and artefacts here."
)
@click.option("--facts", type=click.Path(dir_okay=False, path_type=Path), help="Write what was told as JSON.")
def demo(keep: Path | None, facts: Path | None) -> None:
    """Show the archival process on a fresh deployment."""
    story, started = Story(SafeConsole()), time.monotonic()
    with escaped_streams(), _folder(keep) as folder:
        try:
            asyncio.run(_tell(story, folder))
        except KeyarkError as error:
            say_aside(f"demo: {'; '.join(describe_error(error))}")
            sys.exit(1)
        if facts:
            facts.write_text(json.dumps(story.facts, indent=2))
    story.title(f"done in {time.monotonic() - started:.1f} s")


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="keyark-demo-") as folder:
        yield Path(folder)


async def _tell(story: Story, folder: Path) -> None:
    home = folder / "deployment"
    story.title("keyark: an enrollment with archival, and the recovery of the key")
    command = python_command(
        "keyark.cli", "init", str(home), "--port-base", str(free_ports()), "--authority-password=none"
    )
    await _run(command, story)
    async with _deployment(home, story):
        key_id = await _enroll_alice(story, home, folder / "alice")
        _use_certificates(story, home, folder / "alice")
        await tell_recovery(story, home, folder / "alice", key_id=key_id)


async def _run(command: list[str], story: Story) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    for line in output.decode().splitlines():
        story.say(line)
    if process.returncode:
        raise DemoFailedError(f"{'keyark ' + command[4]} ended with code {process.returncode}.")


@asynccontextmanager
async def _deployment(home: Path, story: Story) -> AsyncIterator[None]:
    """Run `keyark up` until the story is told; it has to stop cleanly."""
    process = await asyncio.create_subprocess_exec(
        *python_command("keyark.cli", "up", str(home)), stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is None:
        raise DemoFailedError("`keyark up` has no output.")
    try:
        async with asyncio.timeout(START_SECONDS):
            for _ in range(3):
                ready = await process.stdout.readline()
                if not ready:
                    raise DemoFailedError("`keyark up` ended before the services were ready.")
                story.say(ready.decode().rstrip())
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        output = await process.stdout.read()
        await process.wait()
    for line in output.decode().splitlines():
        story.say(line)
    if process.returncode:
        raise DemoFailedError(f"`keyark up` ended with code {process.returncode}.")


async def _enroll_alice(story: Story, home: Path, out: Path) -> bytes:
    async with EnrollmentClient.open(home) as client:
        story.step(1, "serve_form")
        form = await client.form("user")
        certificate = form.transport_certificate.certificate
        story.fact("profile", form.profile)
        story.fact("transport_certificate_sha256", hashlib.sha256(certificate).hexdigest())
        story.say("it chains to our own trust anchor and is for spiffe://example.org/drm/transport")

        story.step(2, "accept_request")
        folder = EnrollmentFolder(path=out)
        prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
        folder.save(prepared)
        story.fact("request_id", prepared.statement.request_id.hex())
        story.fact("statement_sha256", prepared.statement.sha256.hex())

        story.step(3, "request_private_key")
        answer = (await client.send([prepared], {}))[0]
        if isinstance(answer, KeyarkError):
            raise answer
        state = EnrollmentState.Name(answer.state).removeprefix("ENROLLMENT_STATE_")
        story.fact("state", state)
        story.say("the same request goes again, with the private key sealed to the transport key")
        enrolled = await client.submit(prepared)
        folder.finish(prepared, enrolled)
    await _show_archive(story, home, prepared, enrolled)
    await _show_issue(story, home, prepared, enrolled)
    await _show_delivery(story, home, prepared)
    return prepared.statement.encryption_spki_sha256


async def _show_archive(story: Story, home: Path, prepared: PreparedEnrollment, enrolled: Enrolled) -> None:
    story.step(4, "archive")
    entry = await _find(home, "drm", EventType.EVENT_TYPE_KEY_ARCHIVED, prepared)
    receipt = enrolled.receipt
    if receipt is None or entry.event.SerializeToString() != receipt.leaf or entry.index != receipt.index:
        raise DemoFailedError("The receipt is not the one of the DRM's log.")
    story.fact("match_proof", entry.details.match_proof)
    story.fact("key_id", entry.event.encryption_spki_sha256.hex())
    story.fact("storage_key_id", entry.event.storage_key_id.hex())
    story.fact("log_index", entry.index)
    story.fact(
        "checkpoint", f"{receipt.checkpoint.origin} {receipt.checkpoint.size} {receipt.checkpoint.root.hex()}"
    )


async def _show_issue(story: Story, home: Path, prepared: PreparedEnrollment, enrolled: Enrolled) -> None:
    story.step(5, "issue")
    if enrolled.receipt is None:
        raise DemoFailedError("There is no receipt.")
    expected = leaf_hash(enrolled.receipt.leaf)
    issued = await _find(home, "cm", EventType.EVENT_TYPE_PAIR_ISSUED, prepared)
    completed = await _find(home, "rm", EventType.EVENT_TYPE_ENROLLMENT_COMPLETED, prepared)
    for role, entry in (("rm", completed), ("cm", issued)):
        if entry.event.receipt_leaf_hash != expected:
            raise DemoFailedError(f"The {role} verified another receipt.")
        story.fact(f"receipt_verified_by_{role}", f"log entry {entry.index} names leaf {expected.hex()}")
    story.fact("signing_serial", issued.event.serials[0].hex())
    story.fact("encryption_serial", issued.event.serials[1].hex())


async def _show_delivery(story: Story, home: Path, prepared: PreparedEnrollment) -> None:
    story.step(6, "deliver")
    certified = await _find(home, "drm", EventType.EVENT_TYPE_KEY_CERTIFIED, prepared, attempts=LINK_ATTEMPTS)
    story.fact(
        "certified", f"log entry {certified.index}, certificate serial {certified.event.serials[0].hex()}"
    )


@dataclass(frozen=True)
class _Entry:
    index: int
    event: AuditEvent
    details: AuditDetails


async def _find(
    home: Path, role: str, kind: EventType.ValueType, prepared: PreparedEnrollment, *, attempts: int = 1
) -> _Entry:
    """Find the enrollment's entry in a subsystem's log; what comes by the outbox may take a moment."""
    async with open_session(Home.load(home), role, identity="auditor/auditor") as session:
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(0.1)
            async for entry in list_entries(session):
                event = AuditEvent.FromString(entry.event.leaf)
                if event.type == kind and event.enrollment_id == prepared.statement.enrollment_id:
                    return _Entry(entry.index, event, AuditDetails.FromString(entry.event.details))
    raise DemoFailedError(f"The {role}'s log has no {EventType.Name(kind)} for the enrollment.")


def _use_certificates(story: Story, home: Path, out: Path) -> None:
    """Let OpenSSL, which knows nothing of keyark, judge the result."""
    story.title("openssl")
    for role in ("signing", "encryption"):
        openssl(
            "verify",
            "-CAfile",
            str(home / "ca.pem"),
            "-untrusted",
            str(out / "chain.pem"),
            str(out / f"{role}.pem"),
        )
        story.say(f"{role}.pem: the chain verifies")
    encrypted = openssl(
        "cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", str(out / "encryption.pem"), data=MESSAGE
    )
    (out / "message.cms").write_bytes(encrypted)
    decrypted = openssl(
        "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(out / "message.cms"),
        "-recip", str(out / "encryption.pem"), "-inkey", str(out / "encryption-key.pem"),
    )  # fmt: skip
    if decrypted != MESSAGE:
        raise DemoFailedError("The message did not come back as it was.")
    story.fact("message", decrypted.decode().strip())


if __name__ == "__main__":
    disable_core_dumps()
    demo()
