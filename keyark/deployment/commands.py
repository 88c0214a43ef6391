"""Runs a service's own commands, as its operator would."""

from __future__ import annotations

import subprocess
from pathlib import Path

from keyark.errors import KeyarkError
from keyark.extras import need_extra
from keyark.identity.spiffe import START_ORDER
from keyark.programs import python_command


class ServiceCommandError(KeyarkError):
    """A service's own command failed; its words are in the message."""

    reason = "SERVICE_COMMAND"


def service_command(role: str, *arguments: str) -> str:
    """Run `keyark-ROLE ARGUMENTS`; returns what it printed. Raises ServiceCommandError and MissingExtraError."""
    need_extra("server")
    command = python_command(f"{role}_service", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 — fixed program
    if done.returncode:
        raise ServiceCommandError(
            f"{role} {arguments[0]} ended with code {done.returncode}: {done.stderr.strip()}"
        )
    return done.stdout


def reload_services(home: Path) -> list[str]:
    """Reload the three running services of a deployment on this machine; returns a line for each thing done.

    All are tried. Raises ServiceCommandError with the words of each that failed.
    """
    return command_services(home, "reload")


def check_policies(home: Path) -> list[str]:
    """Return the rules in effect of all three services by stage; raises ServiceCommandError for what is wrong."""
    return command_services(home, "policy")


def reload_policies(home: Path) -> list[str]:
    """Put the policies of all three files in force at the running services, once all three are right.

    Raises ServiceCommandError; where a file is wrong, nothing has changed anywhere.
    """
    check_policies(home)
    return command_services(home, "policy-reload")


def command_services(home: Path, command: str) -> list[str]:
    """Run one command of all three services; returns what they printed, each line after the service's name.

    All are tried. Raises ServiceCommandError with the words of each that failed.
    """
    lines, failures = [], []
    for role in START_ORDER:
        try:
            printed = service_command(role, command, str(home / role / f"{role}.toml"))
        except ServiceCommandError as error:
            failures.append(error.message)
            continue
        lines += [f"{role}: {line}" for line in printed.splitlines()]
    if failures:
        raise ServiceCommandError("\n".join(failures))
    return lines
