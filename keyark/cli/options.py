"""Options that several commands share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

import click

from keyark.addresses import join_addresses, parse_addresses
from keyark.cli.output import NotConfirmedError, say_aside
from keyark.client.access.passwords import PasswordSource, check_strength
from keyark.errors import InvalidInputError
from keyark.errors.commands import StoppedError, UsageError
from keyark.extras import Extra, need_extra
from keyark.keys.password_files import MAX_PASSWORD, read_password
from keyark.text.terminal import line
from keyark.x509.pkcs12 import Pkcs12Form

F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """Adds an option to a command."""

    def __call__(self, function: F, /) -> F:
        """Return the function with the option."""


def needs(extra: Extra) -> Decorator:
    """Refuse to run a command, before it does anything, where what it needs beside the SDK is not installed."""

    def decorate(function: F) -> F:
        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            need_extra(extra)
            return function(*arguments, **options)

        return cast("F", run)

    return decorate


class _AddressesType(click.ParamType[str]):
    """HOST:PORT, or several of them after commas, as ``keyark.addresses`` reads them."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return join_addresses(parse_addresses(str(value)))
        except InvalidInputError as error:
            self.fail(error.message, param, ctx)


ADDRESSES: Final = _AddressesType()


def home_option(function: F) -> F:
    """--home DIR, or KEYARK_HOME."""
    return click.option(
        "--home",
        envvar="KEYARK_HOME",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="The folder of the deployment or of your home. Default: KEYARK_HOME of the environment.",
    )(function)


class _IdentityOption(click.Option):
    """--as: by default the usual name of its role, or the home's only identity of that role under another name."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:  # noqa: FBT001, FBT002 (click's own)
        """Return the default; --home was read before, since commands declare it before --as."""
        usual = super().get_default(ctx, call=call)
        if isinstance(usual, str) and (named := _identity_of_shell(usual)):
            return named
        home = ctx.params.get("home")
        return only_identity(home, usual) if isinstance(home, Path) and isinstance(usual, str) else usual


def _identity_of_shell(usual: str) -> str:
    """Return the identity that KEYARK_AS names for the role of ``usual``; it may name one for each role."""
    role, _, _ = usual.partition("/")
    named = os.environ.get("KEYARK_AS", "").split()
    return next((one for one in named if one.partition("/")[0] == role), "")


def only_identity(home: Path, usual: str) -> str:
    """Return ``usual`` ("auditor/auditor"), or the only identity of its role where the home has just another one."""
    role, _, _ = usual.partition("/")
    there = [path.parent.name for path in home.glob(f"identities/{role}/*/key.pem")]
    return f"{role}/{there[0]}" if len(there) == 1 else usual


def identity_option(default: str) -> Decorator:
    """--as ROLE/NAME."""
    return click.option(
        "--as",
        "identity",
        cls=_IdentityOption,
        default=default,
        show_default=f"{default}, or the home's only {default.partition('/')[0]}",
        help="The identity in HOME/identities to act as. KEYARK_AS in the environment names one for each "
        "role.",
    )


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(function)


def paging_options(function: F) -> F:
    """--limit and --page-token: a part of a list."""
    for option in (
        click.option("--page-token", default="", help="Continue where an earlier part of this list ended."),
        click.option("--limit", type=click.IntRange(1), help="Show at most this many entries. Default: all."),
    ):
        function = option(function)
    return function


def password_file_option(text: str) -> Decorator:
    """--password-file FILE."""
    return click.option("--password-file", type=click.Path(dir_okay=False, path_type=Path), help=text)


def identity_password_option(function: F) -> F:
    """--identity-password-file FILE."""
    return click.option(
        "--identity-password-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The file with the password of the identity's key. Without it, a terminal asks.",
    )(function)


def pkcs12_form_option(function: F) -> F:
    """--p12-form modern|compatible."""
    return click.option(
        "--p12-form",
        type=click.Choice([form.value for form in Pkcs12Form]),
        default=Pkcs12Form.MODERN.value,
        show_default=True,
        help="How PKCS#12 is encrypted. Use compatible (3DES, with a generated password) for programs "
        "that know no AES: gpgsm 2.2, old Windows and Apple systems.",
    )(function)


def accept_weak_option(function: F) -> F:
    """--accept-weak-password."""
    return click.option(
        "--accept-weak-password", is_flag=True, help="Accept a password that is easy to guess."
    )(function)


def key_password(options: Mapping[str, Any], *, about: Sequence[str] = ()) -> bytes | None:
    """Return the password of --password-file for keys that leave this machine, or None without one.

    Raises WeakPasswordError where it is easy to guess and --accept-weak-password was not given, and UsageError where
    the compatible form of PKCS#12, which is as strong as its password alone, is to have one that a person chose.
    """
    if options["password_file"] is None:
        return None
    if options.get("p12_form") == Pkcs12Form.COMPATIBLE.value:
        raise UsageError("--p12-form compatible uses a generated password; leave --password-file out.")
    password = read_password(options["password_file"])
    if not options["accept_weak_password"]:
        check_strength(password, about=about)
    return password


def password_source(path: Path | None) -> PasswordSource:
    """Return where the password of an identity's key comes from: a file, or a prompt on a terminal."""

    def ask(key: Path) -> bytes | None:
        if path is not None:
            return read_password(path)
        if not sys.stdin.isatty():
            return None
        return asked(
            lambda: click.prompt(f"Password of {line(str(key))}", hide_input=True, err=True)
        ).encode()

    return ask


def new_identity_password(path: Path | None, text: str) -> bytes | None:
    """Return the password for keys that are made here: from a file, or asked twice on a terminal (empty: none).

    Without a terminal nobody chose that the keys stay unencrypted, so standard error says it.
    """
    if path is not None:
        return read_password(path)
    if not sys.stdin.isatty():
        say_aside(
            "warning: there is no terminal to ask for a password, so people's private keys are not "
            "encrypted; --password-file FILE encrypts them"
        )
        return None
    answer: str = asked(
        lambda: click.prompt(
            f"{text} (empty: none)",
            default="",
            hide_input=True,
            confirmation_prompt=True,
            show_default=False,
            err=True,
        )
    )
    if answer:
        check_strength(answer.encode())
    return answer.encode() or None


def asked(prompt: Callable[[], str]) -> str:
    """Return what a person types at a prompt. Raises StoppedError, and UsageError for what opens no key file."""
    try:
        with _stopped_at_once():
            answer = prompt()
        size = len(answer.encode())
    except UnicodeError:
        raise UsageError(
            "The input is not text in the terminal's character set; set the terminal to UTF-8."
        ) from None
    if size > MAX_PASSWORD:
        raise UsageError(f"The input has {size} bytes; give at most {MAX_PASSWORD}.")
    return answer


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """Let Ctrl-C raise StoppedError at a prompt.

    The handler of asyncio only tells the event loop, which a prompt holds up until a whole line was typed.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return

    def stop(*_: object) -> None:
        raise StoppedError.before_the_end()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def confirm(question: str) -> None:
    """Ask a question on the terminal; raises NotConfirmedError without a yes, and StoppedError for Ctrl-C."""
    try:
        agreed = asked(lambda: "yes" if click.confirm(question, err=True) else "")
    except click.Abort:  # nobody is there to answer
        agreed = ""
    except StoppedError:
        raise StoppedError(f"Stopped at the question {question!r}, so that step was not done.") from None
    if not agreed:
        raise NotConfirmedError(
            f"The question {question!r} was not answered with yes, so nothing was done. Scripts use --yes."
        )


def person_options(default: str) -> Decorator:
    """The options of every command that a person gives to a service: home, identity, its password, and --json."""

    def decorate(function: F) -> F:
        for option in (json_option, identity_password_option, identity_option(default), home_option):
            function = option(function)
        return function

    return decorate
