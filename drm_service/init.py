"""`keyark-drm init`: transport key, storage key with its split PIN, log, configuration."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Final

from drm_service.keys.storage_keys import put_token, storage_key_id
from drm_service.records import SCHEMA_VERSION, TABLES
from drm_service.transport.files import TransportFiles
from drm_service.transport.rows import ROTATED, put_new_key, transport_key_leaf
from keyark.clock import SystemClock
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import QuorumRule, check_quorum
from keyark.custody.token import create_software_token
from keyark.files import read_file
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, TRANSPORT_KEY_TYPES, SigningPrivateKey, parse_key_type
from keyark.keys.spki import public_key_id
from keyark.records.v1.drm_pb2 import SoftwareToken, TransportKeyRecord
from keyark.service.program.initialization import (
    CALLERS_TOML,
    DETAILS_TOML,
    SERVICE_TOML,
    WORKERS_TOML,
    add_service_arguments,
    init_identity,
    key_type_names,
    write_config,
)
from keyark.store import WriteTransaction, open_store
from keyark.transparency.checkpoint import NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.certificates import load_certificates

MAX_SHARE_KEY: Final = 1 << 16

CONFIG: Final = (
    "# The Data Recovery Manager. Relative paths start at this file's folder.\n\n"
    + SERVICE_TOML
    + WORKERS_TOML.replace("$work", "open, prove and seal keys")
    + """\
[transport]
# The folder of transport keys, which open envelopes and sign checkpoints, and the issuers of their certificates.
folder = "transport-keys"
chain = "trust-anchor.pem"

[certificates]
# The CAs whose certificates may be linked to archived keys.
issuers = "ca.pem"

"""
    + CALLERS_TOML.rstrip()
    + """
# Profiles with caller_signature = "waived" in cm.toml: for them, the DRM takes the RM's word for who sent a key.
waived_profiles = []

[recovery]
# How many hours agents have to decide on a recovery or another ceremony.
expiry_hours = 24
# "separate": requesters do not approve; "self-approval": they may; "single-agent": one agent may recover alone.
quorum_rule = "$quorum_rule"
# How many ceremonies one agent may ask for within an hour.
requests_per_hour = 1000

# Policy at the stages "archive" and "recover". All rules that apply must accept; see docs/policy.md.
[[policy.rule]]
name = "archived-key-types"
type = "KeyTypes"
stage = "archive"
encryption = [
$encryption_key_types
]

[[policy.rule]]
name = "recoveries-per-day"
type = "Recovery"
stage = "recover"
per_day = 100
"""
    + DETAILS_TOML
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the DRM's `init` asks for."""
    add_service_arguments(parser)
    parser.add_argument(
        "--agent",
        action="append",
        required=True,
        type=Path,
        help="the share-key.json of an agent; repeat it for each agent",
    )
    parser.add_argument("--quorum", required=True, type=int, help="how many agents must approve a recovery")
    parser.add_argument(
        "--transport-key", default="ec-p256", help=" or ".join(t.value for t in TRANSPORT_KEY_TYPES)
    )
    parser.add_argument(
        "--quorum-rule", choices=[rule.value for rule in QuorumRule], default=QuorumRule.SEPARATE.value
    )


def _share_key(path: Path) -> AgentShareKey:
    return AgentShareKey.from_json(read_file(path, max_size=MAX_SHARE_KEY).decode(errors="replace"))


def init(arguments: argparse.Namespace) -> dict[str, str]:
    """Make the DRM's folder; returns the id of the storage key that RM and CM are to trust."""
    anchors = load_certificates(arguments.trust_anchor)
    agents = [_share_key(path) for path in arguments.agent]
    for agent in agents:
        agent.verify(anchors[0])
    check_quorum(len(agents), arguments.quorum, rule=QuorumRule(arguments.quorum_rule))
    key_type = parse_key_type(arguments.transport_key, permitted=TRANSPORT_KEY_TYPES, field="--transport-key")
    folder: Path = arguments.folder
    init_identity(
        folder, trust_domain=arguments.trust_domain, role="drm", trust_anchor=arguments.trust_anchor
    )
    files = TransportFiles(
        folder=folder / "transport-keys",
        chain=folder / "trust-anchor.pem",
        trust_domain=arguments.trust_domain,
    )
    transport_key = files.make_key(1, key_type)
    token, public_key = create_software_token(agents, quorum=arguments.quorum)
    write_config(
        folder / "drm.toml",
        CONFIG,
        trust_domain=arguments.trust_domain,
        listen=arguments.listen,
        quorum_rule=arguments.quorum_rule,
        encryption_key_types=key_type_names(ENCRYPTION_KEY_TYPES),
    )
    asyncio.run(_log_keys(folder, arguments.trust_domain, transport_key, token))
    return {"storage_key_id": public_key.key_id.hex()}


async def _log_keys(
    folder: Path, trust_domain: str, transport_key: SigningPrivateKey, token: SoftwareToken
) -> None:
    """Open the store and the log, keep the token, and log which transport and storage key came into being."""
    clock, origin = SystemClock(), f"{trust_domain}/drm"
    log = Log(origin=origin, signer=NoteSigner.from_private_key(origin, transport_key), clock=clock)
    store = open_store(folder / "store", tables=TABLES, finisher=log.finisher, schema_version=SCHEMA_VERSION)
    try:
        await log.open(store)
        event = AuditEvent(
            version=1,
            type=EventType.EVENT_TYPE_STORAGE_KEY_CREATED,
            time_us=clock.now_us(),
            storage_key_id=storage_key_id(token),
        )
        leaf = new_event(event, AuditDetails())
        key_id = public_key_id(transport_key.public_key())
        record = TransportKeyRecord(generation=1, key_id=key_id)
        transport_leaf = transport_key_leaf(ROTATED, key_id, clock.now_us())

        def write(txn: WriteTransaction) -> None:
            put_new_key(txn, log, transport_leaf, record=record)
            put_token(txn, token)
            log.append(txn, leaf)

        await store.update(write)
    finally:
        await store.close()
