"""`keyark-rm init|serve|reload|check|backup|relink|clear-alarm`: the RM as a program of its own."""

from __future__ import annotations

import sys

from keyark.programs import prepare_service, start_service

if __name__ == "__main__":
    start_service("rm_service")

prepare_service()

from typing import Any

from keyark.service.program.assembly import load_log_key
from keyark.service.program.commands import Program
from keyark.service.program.maintenance import backup, check
from keyark.service.witness.alarms import AlarmCommand
from rm_service.config import RmConfig
from rm_service.downstream import relinking
from rm_service.init import add_arguments, init
from rm_service.records import SCHEMA_VERSION, TABLES
from rm_service.subsystem import run

ALARM = AlarmCommand(role="rm", config=RmConfig, tables=TABLES, schema_version=SCHEMA_VERSION)


def add_commands(commands: Any) -> None:
    """Add what the RM has beside the commands of every service."""
    ALARM.add_to(commands)
    relinking.add_commands(commands)


def check_keys(config: RmConfig) -> list[str]:
    """Load the key that signs the RM's log; raises the errors of ``load_log_key``."""
    load_log_key("rm", config.service, config.log.key)
    return ["log key: loads"]


PROGRAM = Program(
    role="rm",
    config=RmConfig,
    run=run,
    check=lambda config: check(
        "rm",
        config,
        tables=TABLES,
        schema_version=SCHEMA_VERSION,
        check_keys=lambda: check_keys(config),
    ),
    backup=lambda config, target: backup(config, target, tables=TABLES, schema_version=SCHEMA_VERSION),
    add_init_arguments=add_arguments,
    init=init,
    store_folder=lambda config: config.store.path,
    add_commands=add_commands,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
