"""`keyark --help`: the commands, each loaded when it is called."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import click

from keyark import __version__
from keyark.cli.output import SafeGroup, with_words
from keyark.keys.at_rest import ask_terminal_with

COMMANDS: Final = {
    "init": ("keyark.cli.operators.deployment", "init"),
    "up": ("keyark.cli.operators.deployment", "up"),
    "reload": ("keyark.cli.operators.deployment", "reload"),
    "enroll": ("keyark.cli.people.enroll", "enroll"),
    "renew": ("keyark.cli.people.renew", "renew"),
    "enrollments": ("keyark.cli.officers.approvals", "enrollments"),
    "certificates": ("keyark.cli.officers.revocation", "certificates"),
    "keys": ("keyark.cli.agents.keys", "keys"),
    "transport-key": ("keyark.cli.operators.transport_key", "transport_key"),
    "key-password": ("keyark.cli.operators.key_password", "key_password"),
    "authority": ("keyark.cli.operators.authority", "authority"),
    "home": ("keyark.cli.people.home", "home"),
    "identities": ("keyark.cli.operators.identities", "identities"),
    "ca": ("keyark.cli.operators.ca", "ca"),
    "recover": ("keyark.cli.agents.recover", "recover"),
    "agents": ("keyark.cli.agents.agents", "agents"),
    "storage-key": ("keyark.cli.agents.agents", "storage_key"),
    "policy": ("keyark.cli.operators.policy", "policy"),
    "doctor": ("keyark.cli.auditors.doctor", "doctor"),
    "audit": ("keyark.cli.auditors.audit", "audit"),
    "load": ("keyark.cli.operators.load", "load"),
}


class LazyGroup(SafeGroup):
    """Imports a command's module only when the command is asked for, so that --help and --version are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return with_words(command)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The certificate authority for people who encrypt.

    Every user gets two certificates. The encryption key is archived, and only a quorum of recovery agents
    brings it back.
    """
    ask_terminal_with(_ask_key_password)


def _ask_key_password(path: Path) -> bytes:
    module = importlib.import_module("keyark.cli.operators.key_password")
    password: bytes = module.ask_terminal(path)
    return password
