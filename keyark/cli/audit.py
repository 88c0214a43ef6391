"""`keyark audit`: receipts and logs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from keyark.cli.options import (
    home_option,
    identity_option,
    identity_password_option,
    json_option,
    password_source,
)
from keyark.cli.output import KeyarkGroup, print_json, say
from keyark.client.audit import AuditedLog, verify_log, verify_receipt_file
from keyark.client.sessions import open_session


@click.group(cls=KeyarkGroup)
def audit() -> None:
    """Check receipts and logs."""


@audit.command("verify-receipt")
@click.argument("receipt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--transport-cert", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def verify_receipt(receipt: Path, transport_cert: Path, *, as_json: bool) -> None:
    """Check an archival RECEIPT offline, with nothing but the transport certificate."""
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
@home_option
@identity_option("auditor/auditor")
@identity_password_option
@json_option
def verify(**options: Any) -> None:
    """Check the whole log of each running subsystem against its signed checkpoint."""
    home: Path = options["home"]
    password = password_source(options["identity_password_file"])

    async def run() -> dict[str, AuditedLog]:
        audited = {}
        for role in ("rm", "cm", "drm"):
            async with open_session(home, role, identity=options["identity"], password=password) as session:
                audited[role] = await verify_log(session)
        return audited

    audited = asyncio.run(run())
    if options["as_json"]:
        print_json([_facts(log) for log in audited.values()])
        return
    for role, log in audited.items():
        say(f"{role}: {log.entries} entries under checkpoint {log.checkpoint.root.hex()}: consistent")


def _facts(log: AuditedLog) -> dict[str, Any]:
    return {
        "origin": log.checkpoint.origin,
        "entries": log.entries,
        "erased_details": log.erased,
        "root": log.checkpoint.root.hex(),
    }
