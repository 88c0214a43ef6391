"""`keyark --help`: the commands, each loaded when it is called."""

from __future__ import annotations

import importlib
from typing import Final

import click

from keyark import __version__
from keyark.cli.output import SafeGroup, with_words

COMMANDS: Final = {
    "init": ("keyark.cli.deployment", "init"),
    "up": ("keyark.cli.deployment", "up"),
    "reload": ("keyark.cli.deployment", "reload"),
    "enroll": ("keyark.cli.enroll", "enroll"),
    "renew": ("keyark.cli.renew", "renew"),
    "enrollments": ("keyark.cli.approvals", "enrollments"),
    "certificates": ("keyark.cli.revocation", "certificates"),
    "keys": ("keyark.cli.keys", "keys"),
    "transport-key": ("keyark.cli.transport_key", "transport_key"),
    "authority": ("keyark.cli.authority", "authority"),
    "home": ("keyark.cli.home", "home"),
    "identities": ("keyark.cli.identities", "identities"),
    "ca": ("keyark.cli.ca", "ca"),
    "recover": ("keyark.cli.recover", "recover"),
    "agents": ("keyark.cli.agents", "agents"),
    "storage-key": ("keyark.cli.agents", "storage_key"),
    "policy": ("keyark.cli.policy", "policy"),
    "doctor": ("keyark.cli.doctor", "doctor"),
    "audit": ("keyark.cli.audit", "audit"),
    "load": ("keyark.cli.load", "load"),
}


class LazyGroup(SafeGroup):
    """Imports a command's module only when the command is asked for, so that --help and --version are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which people meet them."""
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words name; for an unknown one, what it may have been is told."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx) from None

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

    Two certificates for every user, the encryption key archived, and back only by a quorum of recovery agents.
    """
