"""`clear-alarm` of RM and CM: shows the two signed heads of the DRM's log that contradict each other.

Nothing is cleared until the operator confirms this very evidence by its SHA-256: two different alarms need two looks.
The same command confirms that the DRM was restored from a backup, and goes on from what it holds then.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from keyark.clock import SystemClock
from keyark.config import load_config
from keyark.errors import KeyarkError, Kind, NotFoundError
from keyark.records.v1.log_pb2 import LogAlarm
from keyark.service.checks.evidence import followed_transport_keys, open_transport_trust, put_transport_keys
from keyark.service.program.assembly import load_log_key
from keyark.service.program.output import answer
from keyark.service.settings import ArchiveTrust, LogSettings, ServiceConfig
from keyark.service.witness.restoration import NO_CHANGE, Restoration, StepBack
from keyark.store import Store, WriteTransaction, open_store
from keyark.text.terminal import print_line
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.heads import AcceptedHeads, alarm_about, clear_alarm, replace_head
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType

CLEAR_ALARM: Final = "clear-alarm"


class EvidenceUnconfirmedError(KeyarkError):
    """The operator did not confirm the evidence of the alarm that is on; nothing was changed."""

    reason = "EVIDENCE_UNCONFIRMED"
    kind = Kind.PRECONDITION


class FollowerConfig(ServiceConfig, Protocol):
    """The configuration of a service that follows the DRM's log and has the key of its own log."""

    @property
    def log(self) -> LogSettings:
        """[log]."""

    @property
    def archive(self) -> ArchiveTrust:
        """[archive]."""


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What the operator names of what was shown, each by its SHA-256, hexadecimal; empty before the first look."""

    evidence: str
    believe: str


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
            help="while the service is stopped: show the evidence of an alarm about the DRM's log, and clear "
            "it once confirmed",
        )
        parser.add_argument("config", type=Path, help=f"{self.role}.toml")
        parser.add_argument(
            "--evidence",
            metavar="SHA256",
            default="",
            help="confirm the evidence that was shown, by its SHA-256",
        )
        parser.add_argument(
            "--restored",
            metavar="SIZE:ROOT",
            help="after the DRM was restored from a backup: accept this head of its log, as `keyark-drm "
            "check` prints it",
        )
        parser.add_argument(
            "--transport-key",
            type=Path,
            metavar="PEM",
            help="with --restored: the certificate of the transport key that was made after the restore; "
            "older keys prove nothing new",
        )
        parser.add_argument(
            "--newest-change",
            metavar="ID",
            help="with --restored: the newest change of agents or storage keys that the restored DRM has, as "
            f"`keyark-drm check` prints it, or {NO_CHANGE}",
        )
        parser.add_argument(
            "--believe",
            metavar="SHA256",
            default="",
            help="with --restored: confirm the earlier agents and storage keys that were shown, by their "
            "SHA-256",
        )
        parser.set_defaults(command=self._run)

    def _run(self, parsed: argparse.Namespace) -> None:
        config = load_config(parsed.config, self.config)
        restored = Restoration.read(
            config.service,
            head=parsed.restored,
            transport=parsed.transport_key,
            newest_change=parsed.newest_change,
        )
        confirmed = Confirmed(evidence=parsed.evidence, believe=parsed.believe)
        aside = sys.stderr if parsed.as_json else sys.stdout
        cleared = asyncio.run(
            self.clear(
                config, confirmed=confirmed, restored=restored, show=lambda line: print_line(line, aside)
            )
        )
        answer(parsed, {"cleared": cleared}, cleared.split("\n"))

    async def clear(
        self,
        config: FollowerConfig,
        *,
        confirmed: Confirmed,
        restored: Restoration | None,
        show: Callable[[str], None],
    ) -> str:
        """Show the alarm; once ``confirmed`` names it, clear it with a leaf in the service's log.

        ``restored`` replaces the accepted head, ends the transport keys before, and goes back to the agents and storage
        keys that the DRM holds, which have to be confirmed too. Returns what was cleared. Raises
        EvidenceUnconfirmedError, TransportKeyRetiredError for a transport key from before the restore, NotFoundError
        where there is nothing to clear, ChangeNeverBelievedError, and the errors of certificates, store and log.
        """
        signer = load_log_key(self.role, config.service, config.log.key)
        log = Log(origin=f"{config.service.trust_domain}/{self.role}", signer=signer, clock=SystemClock())
        store = open_store(
            config.store.path, tables=self.tables, finisher=log.finisher, schema_version=self.schema_version
        )
        try:
            await log.open(store)
            return await _clear(config, store, log, confirmed=confirmed, restored=restored, show=show)
        finally:
            await log.close()
            await store.close()


async def _clear(
    config: FollowerConfig,
    store: Store,
    log: Log,
    *,
    confirmed: Confirmed,
    restored: Restoration | None,
    show: Callable[[str], None],
) -> str:
    origin, clock = f"{config.service.trust_domain}/drm", SystemClock()
    alarm = store.read(lambda txn: alarm_about(txn, origin=origin))
    if restored is None and not alarm.message:
        raise NotFoundError("There is no alarm; nothing was changed.")
    back = _step_back(config, store, restored)
    _confirm(alarm, back, confirmed, show)
    cleared = f"cleared: {alarm.message or 'no alarm'}"
    keys = followed_transport_keys(open_transport_trust(config.service), store)
    if restored is not None:
        if not restored.is_confirmed(keys, AcceptedHeads.load(store, origin=origin)):
            keys.restart(restored.transport, at=clock.now_us() // 1_000_000)
        cleared += f"; {restored}, under transport key {keys.newest_id.hex()}"
    event = AuditEvent(version=EVENT_VERSION, type=EventType.EVENT_TYPE_ALARM_CLEARED, time_us=clock.now_us())
    contradiction = alarm.contradiction.SerializeToString(deterministic=True)
    leaves = [new_event(event, AuditDetails(message=cleared, contradiction=contradiction))]
    leaves += [back.leaf(clock)] if back else []

    def write(txn: WriteTransaction) -> None:
        clear_alarm(txn, origin=origin)
        if restored is not None:
            replace_head(txn, restored.head)
            put_transport_keys(txn, keys)
        if back:
            back.write(txn)
        for leaf in leaves:
            log.append(txn, leaf)

    await store.update(write)
    return "\n".join([cleared, *(back.lines if back else ())])


def _step_back(config: FollowerConfig, store: Store, restored: Restoration | None) -> StepBack | None:
    if restored is None:
        return None
    return store.read(lambda txn: restored.step_back(txn, config.archive, config.service.trust_domain))


def _confirm(
    alarm: LogAlarm, back: StepBack | None, confirmed: Confirmed, show: Callable[[str], None]
) -> None:
    """Show the evidence of an alarm, and what is believed again; raise unless the operator named what there is."""
    words, advice = [], []
    if alarm.message and confirmed.evidence != evidence_hash(alarm):
        for line in describe_evidence(alarm):
            show(line)
        words.append(f"--evidence {evidence_hash(alarm)}")
        advice.append("Keep the evidence, and find out why the log contradicts itself.")
    if back and confirmed.believe != back.digest:
        for line in back.lines:
            show(line)
        words.append(f"--believe {back.digest}")
        advice.append(
            "Ask the agents which changes they made. Once everything works again, repeat those that the "
            "backup lacks."
        )
    if words:
        raise EvidenceUnconfirmedError(
            f"Nothing was changed. {' '.join(advice)} To continue, run the command again with "
            f"{' '.join(words)}."
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
