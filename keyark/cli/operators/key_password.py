"""`keyark key-password`: encrypts the private keys of a service or of the authority where they lie."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import click

from keyark.cli.options import F, asked, json_option
from keyark.cli.output import KeyarkGroup, print_json, say
from keyark.client.access.passwords import check_strength
from keyark.errors.commands import UsageError
from keyark.keys.at_rest import FILE, TERMINAL, ask_terminal_with, read_key_passwords
from keyark.keys.reencryption import decrypt_keys, encrypt_keys, key_files, unencrypted_keys
from keyark.text.terminal import line

NONE = "none"
SOURCES = "file:/PATH, credential:NAME of systemd, descriptor:N, or terminal, which asks a person each time"


@cache
def ask_terminal(path: Path) -> bytes:
    """Ask for the password of a folder's keys, once in a program; raises UsageError without a terminal."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"The keys in {line(str(path.parent))} need a password that a person types, but there is no "
            "terminal. Run the command on one, or name a file with `keyark key-password set "
            f"{line(str(path.parent))} file:/PATH`."
        )
    return asked(
        lambda: click.prompt(f"Password of the keys in {line(str(path.parent))}", hide_input=True, err=True)
    ).encode()


def choose_on_terminal(folder: Path) -> None:
    """Have a person choose the password of a folder's keys, typed twice; this program uses it from then on.

    Raises WeakPasswordError, and UsageError without a terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            f"There is no terminal on which to choose the password of the keys in {line(str(folder))}; "
            f"name a source: {SOURCES}."
        )
    chosen = asked(
        lambda: click.prompt(
            f"New password for the keys in {line(str(folder))}",
            hide_input=True,
            confirmation_prompt=True,
            err=True,
        )
    ).encode()
    check_strength(chosen)
    target = folder.absolute() / FILE
    ask_terminal_with(lambda path: chosen if path.absolute() == target else ask_terminal(path))


def authority_password_option(function: F) -> F:
    """--authority-password SOURCE."""
    return click.option(
        "--authority-password",
        default=TERMINAL,
        envvar="KEYARK_AUTHORITY_PASSWORD",
        show_default=True,
        metavar="SOURCE",
        help=f"Encrypt the keys of root and internal CA with the password from this source: {SOURCES}; or "
        f"{NONE}, not to encrypt them.",
    )(function)


def authority_password(source: str, folder: Path) -> str | None:
    """Return the source of the password of a new authority's keys, None for none; a person chooses one if need be."""
    if source == TERMINAL:
        choose_on_terminal(folder)
    return None if source == NONE else source


@click.group("key-password", cls=KeyarkGroup)
def key_password() -> None:
    """Encrypt the private keys of a service or of the authority at rest, and change their password."""


def _folder(function: F) -> F:
    return click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))(function)


@key_password.command("set")
@_folder
@click.argument("source")
@json_option
def set_password(folder: Path, source: str, **options: Any) -> None:
    """Encrypt the private keys in FOLDER with the password from SOURCE, or change their password.

    SOURCE is file:/PATH, credential:NAME, descriptor:N or terminal. A running service is not affected; its next
    start needs the new password. If the command is interrupted, run it again.
    """
    if source == TERMINAL:
        choose_on_terminal(folder)
    _tell("encrypted", folder, encrypt_keys(folder, source), options)


@key_password.command("remove")
@_folder
@json_option
def remove(folder: Path, **options: Any) -> None:
    """Decrypt the private keys in FOLDER."""
    _tell("decrypted", folder, decrypt_keys(folder), options)


@key_password.command("show")
@_folder
@json_option
def show(folder: Path, **options: Any) -> None:
    """Show where the password of the keys in FOLDER comes from, and which keys are not encrypted."""
    source = read_key_passwords(folder / FILE).current if (folder / FILE).exists() else None
    bare, count = unencrypted_keys(folder), len(list(key_files(folder)))
    if options["as_json"]:
        files = [str(file) for file in bare]
        print_json({"folder": str(folder), "source": source, "keys": count, "unencrypted": files})
        return
    say(f"source       {source or 'none: keys are made unencrypted'}")
    say(f"encrypted    {count - len(bare)} of {count} keys")
    for file in bare:
        say(f"unencrypted  {file}")


def _tell(what: str, folder: Path, files: list[Path], options: dict[str, Any]) -> None:
    if options["as_json"]:
        print_json({"folder": str(folder), what: [str(file) for file in files]})
    else:
        say(f"{what} {len(files)} keys in {folder}")
