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
from keyark.records.v1.log_pb2 import LogAlarm
from keyark.service.assembly import load_log_key
from keyark.service.settings import LogSettings, ServiceConfig
from keyark.store import WriteTransaction, open_store
from keyark.transparency.checkpoint import Checkpoint
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.heads import alarm_about, clear_alarm, replace_head
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType

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
        parser.set_defaults(command=self._run)

    def _run(self, parsed: argparse.Namespace) -> None:
        config = load_config(parsed.config, self.config)
        print(asyncio.run(self.clear(config, evidence=parsed.evidence, restored=parsed.restored, show=print)))

    async def clear(
        self, config: LoggingConfig, *, evidence: str, restored: str | None, show: Callable[[str], None]
    ) -> str:
        """Show the alarm; once ``evidence`` names it (SHA-256, hexadecimal), clear it with a leaf in the service's log.

        ``restored`` ("SIZE:ROOT") replaces the accepted head. Returns what was cleared. Raises
        EvidenceUnconfirmedError, InvalidInputError for a malformed head, NotFoundError where there is nothing
        to clear, and the errors of store and log.
        """
        origin = f"{config.service.trust_domain}/drm"
        head = None if restored is None else _head(origin, restored)
        signer = load_log_key(self.role, config.service, config.log.key)
        clock = SystemClock()
        log = Log(origin=f"{config.service.trust_domain}/{self.role}", signer=signer, clock=clock)
        store = open_store(
            config.store.path, tables=self.tables, finisher=log.finisher, schema_version=self.schema_version
        )
        try:
            await log.open(store)
            alarm = store.read(lambda txn: alarm_about(txn, origin=origin))
            _confirm(alarm, evidence, show, is_needed=head is None)
            cleared = f"cleared: {alarm.message or 'no alarm'}"
            if head is not None:
                cleared += f"; from now on the DRM's log leads on from {restored}"
            event = AuditEvent(
                version=EVENT_VERSION, type=EventType.EVENT_TYPE_ALARM_CLEARED, time_us=clock.now_us()
            )
            details = AuditDetails(
                message=cleared, contradiction=alarm.contradiction.SerializeToString(deterministic=True)
            )
            leaf = new_event(event, details)

            def write(txn: WriteTransaction) -> None:
                clear_alarm(txn, origin=origin)
                if head is not None:
                    replace_head(txn, head)
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


def _head(origin: str, text: str) -> Checkpoint:
    """Read the size of a tree, decimal, and its root, 64 hexadecimal digits."""
    found = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text)
    if found is None:
        raise InvalidInputError(
            f"{text!r} is no SIZE:ROOT of a log; take it from what `keyark-drm check` tells of it."
        )
    return Checkpoint(origin, int(found[1]), bytes.fromhex(found[2]))
