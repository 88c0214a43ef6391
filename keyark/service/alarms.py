"""`clear-alarm` of RM and CM: an operator looked at what the DRM's log contradicts, and lets the service go on."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from keyark.clock import SystemClock
from keyark.config import load_config
from keyark.errors import InvalidInputError, NotFoundError
from keyark.service.assembly import load_log_key
from keyark.service.settings import LogSettings, ServiceConfig
from keyark.store import WriteTransaction, open_store
from keyark.transparency.checkpoint import Checkpoint
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.heads import alarm_about, clear_alarm, replace_head
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType

CLEAR_ALARM: Final = "clear-alarm"


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
            CLEAR_ALARM, help="with the service stopped: go on after an alarm about the DRM's log"
        )
        parser.add_argument("config", type=Path, help=f"{self.role}.toml")
        parser.add_argument(
            "--restored",
            metavar="SIZE:ROOT",
            help="the DRM was restored from a backup: accept this head of its log, as `keyark doctor` tells it",
        )
        parser.set_defaults(command=self._run)

    def _run(self, parsed: argparse.Namespace) -> None:
        config = load_config(parsed.config, self.config)
        print(asyncio.run(self.clear(config, restored=parsed.restored)))

    async def clear(self, config: LoggingConfig, *, restored: str | None) -> str:
        """Clear the alarm with a leaf in the service's own log; ``restored`` ("SIZE:ROOT") replaces the accepted head.

        Returns what was cleared. Raises InvalidInputError for a malformed head, NotFoundError where there is nothing
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

        def write(txn: WriteTransaction) -> str:
            alarm = alarm_about(txn, origin=origin)
            if not clear_alarm(txn, origin=origin) and head is None:
                raise NotFoundError("There is no alarm; nothing was changed.")
            cleared = f"cleared: {alarm or 'no alarm'}"
            if head is not None:
                replace_head(txn, head)
                cleared += f"; from now on the DRM's log leads on from {restored}"
            event = AuditEvent(
                version=EVENT_VERSION, type=EventType.EVENT_TYPE_ALARM_CLEARED, time_us=clock.now_us()
            )
            log.append(txn, new_event(event, AuditDetails(message=cleared)))
            return cleared

        try:
            await log.open(store)
            return await store.update(write)
        finally:
            await log.close()
            await store.close()


def _head(origin: str, text: str) -> Checkpoint:
    """Read the size of a tree, decimal, and its root, 64 hexadecimal digits."""
    found = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text)
    if found is None:
        raise InvalidInputError(
            f"{text!r} is no SIZE:ROOT of a log; take it from what `keyark doctor` tells."
        )
    return Checkpoint(origin, int(found[1]), bytes.fromhex(found[2]))
