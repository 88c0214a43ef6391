"""`keyark-drm init|serve|reload|check|backup|transport-key`: the DRM as a program of its own."""

from __future__ import annotations

import sys

from keyark.programs import prepare_service, start_service

if __name__ == "__main__":
    start_service("drm_service")

prepare_service()

from drm_service.checking import backup, check
from drm_service.config import DrmConfig
from drm_service.init import add_arguments, init
from drm_service.subsystem import run
from drm_service.transport.commands import add_commands
from keyark.service.program.commands import Program

PROGRAM = Program(
    role="drm",
    config=DrmConfig,
    run=run,
    check=check,
    backup=backup,
    add_init_arguments=add_arguments,
    init=init,
    store_folder=lambda config: config.store.path,
    add_commands=add_commands,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
