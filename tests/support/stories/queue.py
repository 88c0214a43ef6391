"""Deployments whose RM defers requests to officers, and what such tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keyark.client.access.sessions import open_session
from keyark.client.administration.approvals import ApprovalClient
from keyark.client.trust.receipts import list_entries
from keyark.keys.key_types import narrow_signing_key
from keyark.keys.private_keys import load_private_key
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.statements.approvals import OfficerSigner
from keyark.store import open_store
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.certificates import load_pem_certificates
from rm_service.records import APPROVAL_QUEUE, TABLES, WRAPPED_KEYS
from tests.support.running.deployment import Deployment

DEFER = """
[[policy.rule]]
name = "by-hand"
type = "ManualApproval"
stage = "submit"
message = "guests are approved by hand"
when = '!common_name.startsWith("Staff")'
"""
OFFICER = "spiffe://example.org/officer/officer"


def defer(folder: Path, *more: str) -> Path:
    """Let an RM defer everybody but staff; ``more`` rules follow."""
    path = folder / "rm" / "rm.toml"
    path.write_text(path.read_text() + DEFER + "".join(more))
    return folder


def officer_of(deployment: Deployment, identity: str = "officer/officer") -> ApprovalClient:
    """An officer; use it as an async context manager."""
    return ApprovalClient.open(deployment.home(), identity=identity, retries=NO_RETRIES)


def signer_of(folder: Path, identity: str = "officer/officer") -> OfficerSigner:
    """What signs for one of a deployment's people."""
    person = folder / "identities" / identity
    return OfficerSigner(
        certificate=load_pem_certificates((person / "cert.pem").read_bytes())[0],
        private_key=narrow_signing_key(load_private_key(person / "key.pem")),
    )


async def queue_events(deployment: Deployment) -> list[tuple[str, AuditEvent, AuditDetails]]:
    """What the RM's log says of enrollments, oldest first."""
    async with open_session(deployment.home(), "rm", identity="auditor/auditor") as session:
        entries = [
            (AuditEvent.FromString(e.event.leaf), AuditDetails.FromString(e.event.details))
            async for e in list_entries(session)
        ]
    named = [(EventType.Name(event.type).removeprefix("EVENT_TYPE_"), event, told) for event, told in entries]
    return [entry for entry in named if entry[0].startswith("ENROLLMENT_")]


async def left_in_store(folder: Path) -> dict[str, int]:
    """How many rows a stopped RM's store has of requests that wait and of their keys."""
    store: Any = open_store(folder / "rm" / "store", tables=TABLES, finisher=lambda txn, items: None)
    try:
        return store.read(lambda txn: {t: txn.count(t) for t in (APPROVAL_QUEUE, WRAPPED_KEYS)})
    finally:
        await store.close()
