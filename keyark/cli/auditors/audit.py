"""`keyark audit`: receipts and logs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from keyark.cli.agents.ceremonies import say_unconfirmed
from keyark.cli.auditors.audit_log import show_log
from keyark.cli.listing import witnesses_of
from keyark.cli.options import (
    json_option,
    person_options,
)
from keyark.cli.output import KeyarkGroup, error_facts, print_json, say
from keyark.client.audit.log_heads import LogAudit, audit_logs
from keyark.client.trust.receipts import AuditedLog, verify_receipt_file
from keyark.client.trust.witnesses import Unconfirmed


@click.group(cls=KeyarkGroup)
def audit() -> None:
    """Read and verify the logs, and verify receipts."""


audit.add_command(show_log)


@audit.command("verify-receipt")
@click.argument("receipt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--transport-cert", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def verify_receipt(receipt: Path, transport_cert: Path, *, as_json: bool) -> None:
    """Verify an archival RECEIPT offline, with the transport certificate alone."""
    verified = verify_receipt_file(receipt, transport_cert)
    facts = {
        "key_id": verified.event.encryption_spki_sha256.hex(),
        "enrollment_id": verified.event.enrollment_id.hex(),
        "common_name": verified.details.common_name,
        "email": verified.details.email,
        "storage_key_id": verified.event.storage_key_id.hex(),
        "match_proof": verified.details.match_proof,
        "log_index": verified.index,
        "log_origin": verified.checkpoint.origin,
        "tree_size": verified.checkpoint.size,
        "root": verified.checkpoint.root.hex(),
    }
    if as_json:
        print_json(facts)
        return
    say("the receipt is genuine: the key is archived and was proven to match")
    for name, value in facts.items():
        say(f"  {name}: {value}")


@audit.command()
@person_options("auditor/auditor")
def verify(**options: Any) -> None:
    """Verify the whole log of each running service.

    Each log must match its signed checkpoint and continue what this home saw before. The DRM's log must be the
    one that RM and CM follow; if one of them does not answer, the result says so.
    """

    async def run() -> LogAudit:
        async with witnesses_of(options) as witnesses:
            return await audit_logs(witnesses)

    audited = asyncio.run(run())
    if options["as_json"]:
        failed = [{"log": role, "error": error_facts(error)} for role, error in audited.failures.items()]
        print_json([*(_facts(role, log, audited.unconfirmed) for role, log in audited.logs.items()), *failed])
    else:
        _show(audited)
    audited.check()


def _show(audited: LogAudit) -> None:
    for role, log in audited.logs.items():
        erased = f", the details of {log.erased} erased" if log.erased else ""
        say(f"{role}: {log.entries} entries{erased} under checkpoint {log.checkpoint.root.hex()}: consistent")
    for role, failure in audited.failures.items():
        say(f"{role}: not verified: {failure.message}")
    if "drm" in audited.logs:
        say_unconfirmed(audited.unconfirmed)


def _facts(role: str, log: AuditedLog, unconfirmed: Unconfirmed) -> dict[str, Any]:
    facts = {
        "log": role,
        "origin": log.checkpoint.origin,
        "entries": log.entries,
        "erased_details": log.erased,
        "root": log.checkpoint.root.hex(),
    }
    return facts | {"unconfirmed": dict(unconfirmed)} if role == "drm" else facts
