"""`keyark renew`: new keys and certificates for who has certificates in force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from cryptography.x509.oid import NameOID

from keyark.cli.options import (
    accept_weak_option,
    password_file_option,
    password_source,
    person_options,
    pkcs12_form_option,
)
from keyark.cli.people.enroll import key_options, key_type, open_client, report, run_one
from keyark.client.enrollment.folder import EnrollmentFolder
from keyark.client.enrollment.single import EnrollmentOrder, UserResult, enroll_into
from keyark.errors import ConfigurationError
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES
from keyark.keys.password_files import read_password


@click.command()
@click.option(
    "--in",
    "old",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder with the current keys and certificates, as `keyark enroll` or `renew` wrote it.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the new keys and certificates. An interrupted run goes on in the same folder.",
)
@click.option("--profile", help="A profile that replaces the current one.")
@click.option("--signing-key", help=f"One of: {' '.join(t.value for t in SIGNING_KEY_TYPES)}.")
@click.option("--encryption-key", help=f"One of: {' '.join(t.value for t in ENCRYPTION_KEY_TYPES)}.")
@click.option("--format", "key_format", type=click.Choice(["pem", "p12"]), default="pem", show_default=True)
@pkcs12_form_option
@password_file_option(
    "The file with the password that encrypts the new keys. Without it, a password is generated for PKCS#12."
)
@accept_weak_option
@click.option(
    "--in-password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file with the password of the current keys. Default: that of --password-file.",
)
@click.option("--wait", is_flag=True, help="If an officer has to decide, wait for the decision.")
@click.option("--wait-seconds", type=click.IntRange(1), default=3600, show_default=True)
@person_options("client/enroller")
def renew(**options: Any) -> None:
    """Renew certificates before they expire: make two new key pairs, and archive the new encryption key.

    The current signing key proves who asks. The old encryption key stays archived. Keep it too: old mail needs
    it.
    """
    folder = EnrollmentFolder(path=options["out"], **key_options(options))
    order = _order(options)

    async def run() -> UserResult:
        async with open_client(options) as client:
            return await enroll_into(
                client, folder, order, wait_seconds=options["wait_seconds"] if options["wait"] else 0
            )

    report(run_one(run(), folder, order), as_json=options["as_json"])


def _order(options: dict[str, Any]) -> EnrollmentOrder:
    """Return the order that renews what lies in the old folder, for the name that its certificates have."""
    password_file = options["in_password_file"] or options["password_file"]
    old = EnrollmentFolder(
        path=options["old"],
        password=read_password(password_file) if password_file else None,
        ask=password_source(None),
    )
    statement = old.saved_statement()
    if statement is None:
        raise ConfigurationError(f"{old.path} has no enrollment; name the folder that `keyark enroll` wrote.")
    order = EnrollmentOrder(
        common_name=statement.common_name,
        email=statement.email,
        profile=options["profile"] or statement.profile,
        signing_key_type=key_type(options["signing_key"], SIGNING_KEY_TYPES, "--signing-key"),
        encryption_key_type=key_type(options["encryption_key"], ENCRYPTION_KEY_TYPES, "--encryption-key"),
        present=old.present(),
    )
    names = old.certificates()[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    certified = {str(name.value) for name in names} - {statement.email}
    return replace(order, common_name=certified.pop()) if certified else order
