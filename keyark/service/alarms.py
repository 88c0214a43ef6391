"""`clear-alarm` of RM and CM: shows the two signed heads of the DRM's log that contradict each other.

Nothing is cleared until the operator confirms this very evidence by its SHA-256: two different alarms need two looks.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from keyark.clock import SystemClock
from keyark.config import load_config
from keyark.errors import InvalidInputError, KeyarkError, Kind, NotFoundError
from keyark.pki.certificates import encode_certificate, load_certificates
from keyark.records.v1.log_pb2 import LogAlarm
from keyark.service.assembly import load_log_key
from keyark.service.evidence import followed_transport_keys, open_transport_trust, put_transport_keys
from keyark.service.settings import LogSettings, ServiceConfig, ServiceSettings
from keyark.store import WriteTransaction, open_store
from keyark.transparency.checkpoint import Checkpoint
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.heads import AcceptedHeads, alarm_about, clear_alarm, replace_head
from keyark.transparency.log import Log
from keyark.transparency.transport_keys import FollowedTransportKeys, certified_key_id
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.common_pb2 import TransportCertificate

CLEAR_ALARM: Final = "clear-alarm"


class EvidenceUnconfirmedError(KeyarkError):
    """The operator did not confirm the evidence of the alarm that is on; nothing was changed."""

    reason = "EVIDENCE_UNCONFIRMED"
    kind = Kind.PRECONDITION


class LoggingConfig(ServiceConfig, Protocol):
    """The configuration of a service whose log key is named in it."""

    @property
    def log(self) -> LogSettings:
        """[log]."""


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """What an operator confirms of a DRM that came from a backup: its log's head, and the key that it began since.

    The key is what tells the log from the one that was lost: both lead on from the head. Who kept receipts or heads of
    the lost one has the signatures of the keys before.
    """

    head: Checkpoint
    transport: TransportCertificate

    def is_confirmed(self, keys: FollowedTransportKeys, heads: AcceptedHeads) -> bool:
        """Say whether it was confirmed before, and nothing was accepted since."""
        same_head = (heads.size, heads.root) == (self.head.size, self.head.root)
        return same_head and keys.newest_id == certified_key_id(self.transport)

    def __str__(self) -> str:
        """Say it to people."""
        return f"from now on the DRM's log leads on from {self.head.size}:{self.head.root.hex()}"


@dataclass(frozen=True, kw_only=True)
class AlarmCommand:
    """The command for one service, which does not run meanwhile."""

    role: str
    config: type[Any]
    tables: Sequence[str]
    schema_version: int

    def add_to(self, commands: Any) -> None:
        """Add `clear-alarm` to the service's program."""
        parser: argparse.ArgumentParser = commands.add_parser(
            CLEAR_ALARM,
            help="with the service stopped: show the evidence of an alarm about the DRM's log, then clear it",
        )
        parser.add_argument("config", type=Path, help=f"{self.role}.toml")
        parser.add_argument(
            "--evidence",
            metavar="SHA256",
            default="",
            help="confirm the evidence that was shown by its SHA-256",
        )
        parser.add_argument(
            "--restored",
            metavar="SIZE:ROOT",
            help="the DRM was restored from a backup: accept this head of its log, as `check` tells it there",
        )
        parser.add_argument(
            "--transport-key",
            type=Path,
            metavar="PEM",
            help="with --restored: the certificate of the transport key that the DRM began since; older keys prove "
            "nothing new",
        )
        parser.set_defaults(command=self._run)

    def _run(self, parsed: argparse.Namespace) -> None:
        config = load_config(parsed.config, self.config)
        restored = _restoration(config.service, parsed.restored, parsed.transport_key)
        print(asyncio.run(self.clear(config, evidence=parsed.evidence, restored=restored, show=print)))

    async def clear(
        self,
        config: LoggingConfig,
        *,
        evidence: str,
        restored: Restoration | None,
        show: Callable[[str], None],
    ) -> str:
        """Show the alarm; once ``evidence`` names it (SHA-256, hexadecimal), clear it with a leaf in the service's log.

        ``restored`` replaces the accepted head, and ends the transport keys before. Returns what was cleared. Raises
        EvidenceUnconfirmedError, TransportKeyRetiredError for a transport key from before the restore, NotFoundError
        where there is nothing to clear, and the errors of certificates, store and log.
        """
        origin = f"{config.service.trust_domain}/drm"
        signer = load_log_key(self.role, config.service, config.log.key)
        clock = SystemClock()
        log = Log(origin=f"{config.service.trust_domain}/{self.role}", signer=signer, clock=clock)
        store = open_store(
            config.store.path, tables=self.tables, finisher=log.finisher, schema_version=self.schema_version
        )
        try:
            await log.open(store)
            alarm = store.read(lambda txn: alarm_about(txn, origin=origin))
            _confirm(alarm, evidence, show, is_needed=restored is None)
            cleared = f"cleared: {alarm.message or 'no alarm'}"
            keys = followed_transport_keys(open_transport_trust(config.service), store)
            if restored is not None:
                if not restored.is_confirmed(keys, AcceptedHeads.load(store, origin=origin)):
                    keys.restart(restored.transport, at=clock.now_us() // 1_000_000)
                cleared += f"; {restored}, under transport key {keys.newest_id.hex()}"
            event = AuditEvent(
                version=EVENT_VERSION, type=EventType.EVENT_TYPE_ALARM_CLEARED, time_us=clock.now_us()
            )
            details = AuditDetails(
                message=cleared, contradiction=alarm.contradiction.SerializeToString(deterministic=True)
            )
            leaf = new_event(event, details)

            def write(txn: WriteTransaction) -> None:
                clear_alarm(txn, origin=origin)
                if restored is not None:
                    replace_head(txn, restored.head)
                    put_transport_keys(txn, keys)
                log.append(txn, leaf)

            await store.update(write)
            return cleared
        finally:
            await log.close()
            await store.close()


def _confirm(alarm: LogAlarm, evidence: str, show: Callable[[str], None], *, is_needed: bool) -> None:
    """Show the evidence of an alarm; raise unless the operator named it, and where an alarm is needed and is not on."""
    if not alarm.message:
        if is_needed:
            raise NotFoundError("There is no alarm; nothing was changed.")
        return
    found = evidence_hash(alarm)
    for line in describe_evidence(alarm):
        show(line)
    if evidence != found:
        raise EvidenceUnconfirmedError(
            "Nothing was changed. Keep this evidence and find out why the log contradicts itself; then, to go on, run "
            f"the command again with --evidence {found}."
        )


def evidence_hash(alarm: LogAlarm) -> str:
    """Return the SHA-256 (hexadecimal) that an operator confirms an alarm by: of its message and evidence."""
    return sha256(alarm.SerializeToString(deterministic=True)).hexdigest()


def describe_evidence(alarm: LogAlarm) -> list[str]:
    """Return lines for people: what is wrong, and the two signed notes as anyone may check them."""
    lines = [alarm.message]
    for note in (alarm.contradiction.first_note, alarm.contradiction.second_note):
        lines += ["signed note:", *(f"    {line}" for line in _printable(note))]
    if alarm.contradiction.links:
        steps = ", ".join(f"{link.first_size} to {link.second_size}" for link in alarm.contradiction.links)
        lines.append(f"the second tree has another one within it, by the proofs from {steps}")
    lines.append(f"SHA-256 of the evidence: {evidence_hash(alarm)}")
    return lines


def _printable(note: bytes) -> list[str]:
    return [
        "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
        for line in note.decode(errors="replace").splitlines()
    ]


def _restoration(service: ServiceSettings, head: str | None, transport: Path | None) -> Restoration | None:
    """Read what --restored and --transport-key name; both or neither."""
    if head is None and transport is None:
        return None
    if head is None or transport is None:
        raise InvalidInputError(
            "After a restore, rotate the DRM's transport key, then confirm both: --restored SIZE:ROOT and "
            "--transport-key with the new key's transport.pem. Else what the RM kept of the lost log would count."
        )
    certificate = encode_certificate(load_certificates(transport)[0])
    return Restoration(
        head=_head(f"{service.trust_domain}/drm", head),
        transport=TransportCertificate(certificate=certificate),
    )


def _head(origin: str, text: str) -> Checkpoint:
    """Read the size of a tree, decimal, and its root, 64 hexadecimal digits."""
    found = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text)
    if found is None:
        raise InvalidInputError(
            f"{text!r} is no SIZE:ROOT of a log; take it from what `keyark-drm check` tells of it."
        )
    return Checkpoint(origin, int(found[1]), bytes.fromhex(found[2]))
