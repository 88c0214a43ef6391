"""`keyark enroll`: one user, or many from a CSV file."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from keyark.cli.options import (
    accept_weak_option,
    home_option,
    identity_option,
    identity_password_option,
    json_option,
    key_password,
    password_file_option,
    password_source,
    pkcs12_form_option,
)
from keyark.cli.output import (
    FAILED,
    PENDING,
    REJECTED,
    describe_error,
    exit_code,
    print_json,
    say,
    say_aside,
)
from keyark.client.enrollment.batch import BatchEnrollment
from keyark.client.enrollment.client import EnrollmentClient
from keyark.client.enrollment.folder import EnrollmentFolder, KeyFormat
from keyark.client.enrollment.pending import PendingApprovalError
from keyark.client.enrollment.single import EnrollmentOrder, UserResult, enroll_into
from keyark.client.enrollment.user_list import read_users
from keyark.errors.commands import UsageError
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType, parse_key_type
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.text.console import SafeConsole
from keyark.x509.pkcs12 import Pkcs12Form


@click.command()
@home_option
@identity_option("client/enroller")
@click.option(
    "--request-id",
    type=click.UUID,
    help="A UUIDv7 that identifies the request when it is retried. Default: a new one.",
)
@click.option("--profile", default="user", show_default=True)
@click.option("--name", help="The common name of the user.")
@click.option("--email", help="The e-mail address of the user.")
@click.option("--signing-key", help=f"One of: {' '.join(t.value for t in SIGNING_KEY_TYPES)}.")
@click.option("--encryption-key", help=f"One of: {' '.join(t.value for t in ENCRYPTION_KEY_TYPES)}.")
@click.option("--format", "key_format", type=click.Choice(["pem", "p12"]), default="pem", show_default=True)
@pkcs12_form_option
@password_file_option(
    "The file with the password that encrypts the user's keys. Without it, a password is "
    "generated for PKCS#12."
)
@accept_weak_option
@identity_password_option
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Enroll every row: name,email[,profile,signing_key,encryption_key].",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for keys and certificates. An interrupted run goes on in the same folder.",
)
@click.option("--wait", is_flag=True, help="If an officer has to decide, wait for the decision.")
@click.option(
    "--wait-seconds",
    type=click.IntRange(1),
    default=3600,
    show_default=True,
    help="How long --wait waits. Then the command exits with 4.",
)
@json_option
@click.pass_context
def enroll(ctx: click.Context, /, **options: Any) -> None:
    """Enroll a user: make two key pairs, get two certificates, and archive the encryption key.

    For PKCS#12 without --password-file, a password is generated: in OUT/password.txt, or with --csv in
    OUT/passwords.csv. Give it to the person separately from the files.

    Exits with 4 if a registration officer has to decide first. The same command with the same --out goes on
    later.
    """
    if options["csv_file"]:
        _enroll_many(ctx, options)
        return
    if not options["name"] or not options["email"]:
        raise UsageError("Name the user with --name and --email, or many users with --csv.")
    about = (options["name"], options["email"])
    folder = EnrollmentFolder(path=options["out"], **key_options(options, about=about))
    order = EnrollmentOrder(
        common_name=options["name"],
        email=options["email"],
        profile=options["profile"],
        signing_key_type=key_type(options["signing_key"], SIGNING_KEY_TYPES, "--signing-key"),
        encryption_key_type=key_type(options["encryption_key"], ENCRYPTION_KEY_TYPES, "--encryption-key"),
        request_id=_request_id(options["request_id"]),
    )

    async def run() -> UserResult:
        async with open_client(options) as client:
            return await enroll_into(
                client, folder, order, wait_seconds=options["wait_seconds"] if options["wait"] else 0
            )

    report(run_one(run(), folder, order), as_json=options["as_json"])


def run_one(
    run: Coroutine[Any, Any, UserResult], folder: EnrollmentFolder, order: EnrollmentOrder
) -> UserResult:
    """Run it; that it waits for an officer is a result."""
    try:
        return asyncio.run(run)
    except PendingApprovalError as pending:
        saved = folder.saved_statement()
        request_id = saved.request_id.hex() if saved else ""
        return UserResult(email=order.email, folder=folder.path, request_id=request_id, error=pending)


def _enroll_many(ctx: click.Context, options: dict[str, Any]) -> None:
    """Enroll every row of the CSV file; a line per user, and a sentence that names those who failed."""
    if options["name"] or options["email"] or options["request_id"] or options["wait"]:
        raise UsageError("--csv names the users; do not use --name, --email, --request-id or --wait with it.")
    users = read_users(options["csv_file"], profile=options["profile"])
    console = SafeConsole(stderr=True)

    async def run() -> list[UserResult]:
        with Progress(console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("enrolling", total=len(users))
            async with open_client(options) as client:
                batch = BatchEnrollment(client=client, out=options["out"], **key_options(options))
                await batch.check_profiles(users)
                return await batch.run(users, lambda: progress.advance(task))

    results = asyncio.run(run())
    pending = [result for result in results if result.is_pending]
    failed = [result for result in results if result.error is not None and not result.is_pending]
    if options["as_json"]:
        print_json([result.as_dict() for result in results])
    else:
        for result in results:
            say(_line(result))
    if failed:
        say_aside(f"keyark: {len(failed)} of {len(results)} failed: {', '.join(r.email for r in failed)}")
        codes = {exit_code(result.error) for result in failed if result.error is not None}
        ctx.exit(REJECTED if codes == {REJECTED} else FAILED)
    if pending:
        say_aside(
            f"keyark: {len(pending)} of {len(results)} wait for an officer; run the command again later"
        )
        ctx.exit(PENDING)


def open_client(options: dict[str, Any]) -> EnrollmentClient:
    """Open the client that the options name."""
    return EnrollmentClient.open(
        options["home"],
        identity=options["identity"],
        password=password_source(options["identity_password_file"]),
        retries=NO_RETRIES,
    )


def key_options(options: dict[str, Any], *, about: Sequence[str] = ()) -> dict[str, Any]:
    """Return how keys are kept, for an EnrollmentFolder."""
    return {
        "key_format": KeyFormat(options["key_format"]),
        "password": key_password(options, about=about),
        "pkcs12_form": Pkcs12Form(options["p12_form"]),
    }


def key_type(name: str | None, fitting: tuple[KeyType, ...], option: str) -> KeyType | None:
    """Return the key type that an option names, None without it."""
    return parse_key_type(name, permitted=fitting, field=option) if name else None


def _request_id(value: uuid.UUID | None) -> bytes | None:
    return value.bytes if value else None


def report(result: UserResult, *, as_json: bool) -> None:
    """Print what became of one user; raises where that is an error."""
    if result.error is not None and not as_json:
        raise result.error
    if as_json:
        print_json(result.as_dict())
    else:
        say(_line(result))
    if result.error is not None:
        raise SystemExit(exit_code(result.error))


def _line(result: UserResult) -> str:
    if result.is_pending:
        return f"{result.email}: waits for a registration officer; in {result.folder}"
    if result.error is not None:
        return f"{result.email}: failed: {'; '.join(describe_error(result.error))}"
    encryption = f", encryption serial {result.encryption_serial}" if result.encryption_serial else ""
    return (
        f"{result.email}: issued for {result.common_name}; signing serial {result.signing_serial}{encryption}; "
        f"in {result.folder}"
    )
