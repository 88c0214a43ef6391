"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import click

from keyark.client.passwords import PasswordSource
from keyark.pki.files import read_secret_file

F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """Adds an option to a command."""

    def __call__(self, function: F, /) -> F:
        """Return the function with the option."""


MAX_PASSWORD_FILE: Final = 4096


def home_option(function: F) -> F:
    """--home DIR, or KEYARK_HOME."""
    return click.option(
        "--home",
        envvar="KEYARK_HOME",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="The deployment's folder, or the KEYARK_HOME of this shell.",
    )(function)


def identity_option(default: str) -> Decorator:
    """--as ROLE/NAME."""
    return click.option(
        "--as",
        "identity",
        default=default,
        show_default=True,
        help="Which identity below HOME/identities acts.",
    )


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(function)


def password_file_option(text: str) -> Decorator:
    """--password-file FILE."""
    return click.option("--password-file", type=click.Path(dir_okay=False, path_type=Path), help=text)


def identity_password_option(function: F) -> F:
    """--identity-password-file FILE."""
    return click.option(
        "--identity-password-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File with the password of the identity's key; asked on a terminal otherwise.",
    )(function)


def read_password(path: Path) -> bytes:
    """Return the first line of a password file that only its owner may open."""
    return read_secret_file(path, max_size=MAX_PASSWORD_FILE).split(b"\n", 1)[0].rstrip(b"\r")


def password_source(path: Path | None) -> PasswordSource:
    """Return where the password of an identity's key comes from: a file, or a prompt on a terminal."""

    def ask(key: Path) -> bytes | None:
        if path is not None:
            return read_password(path)
        if not sys.stdin.isatty():
            return None
        answer: str = click.prompt(f"Password of {key}", hide_input=True, err=True)
        return answer.encode()

    return ask
