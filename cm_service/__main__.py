"""`keyark-cm init|serve|reload|check|backup|clear-alarm|ca-key|ca-switch`: the CM as a program."""

from __future__ import annotations

import sys

from keyark.programs import prepare_service, start_service

if __name__ == "__main__":
    start_service("cm_service")

prepare_service()

from typing import Any

from cm_service import rollover
from cm_service.checking import check
from cm_service.config import CmConfig, add_serve_arguments, adjust
from cm_service.init import add_arguments, init
from cm_service.records import SCHEMA_VERSION, TABLES
from cm_service.subsystem import run
from keyark.service.program.commands import Program
from keyark.service.program.maintenance import backup
from keyark.service.witness.alarms import AlarmCommand

ALARM = AlarmCommand(role="cm", config=CmConfig, tables=TABLES, schema_version=SCHEMA_VERSION)


def add_commands(commands: Any) -> None:
    """Add what the CM has beside the commands of every service."""
    ALARM.add_to(commands)
    rollover.add_commands(commands)


PROGRAM = Program(
    role="cm",
    config=CmConfig,
    run=run,
    check=check,
    backup=lambda config, target: backup(config, target, tables=TABLES, schema_version=SCHEMA_VERSION),
    add_init_arguments=add_arguments,
    init=init,
    store_folder=lambda config: config.store.path,
    add_commands=add_commands,
    add_serve_arguments=add_serve_arguments,
    adjust=adjust,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
