"""`check` and `backup` of every service: what can be said of it while it does not run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from keyark.addresses import Address, parse_addresses
from keyark.errors import ConfigurationError
from keyark.files import is_there
from keyark.identity.bundles import BUNDLE
from keyark.identity.revoked import RevokedIdentities
from keyark.keys.reencryption import unencrypted_keys
from keyark.policy.config import build_engine
from keyark.rpc.identities import LocalIdentity
from keyark.service.program.assembly import load_identity, make_store_folder
from keyark.service.program.identity_list import check_identity_list
from keyark.service.program.served_bundle import read_bundle
from keyark.service.settings import ServiceConfig, ServiceSettings
from keyark.store import ReadTransaction, Row, open_store
from keyark.transparency.integrity import verify_stored_log
from keyark.x509.certificates import Validity, load_certificates, load_pem_certificates


class AddressError(ConfigurationError):
    """The service cannot listen at its address."""

    reason = "ADDRESS"


def nothing_more(_: ReadTransaction) -> list[str]:
    """The check of rows for a service whose rows the log does not stand for one by one."""
    return []


def _bundle_lines(settings: ServiceSettings) -> list[str]:
    path = settings.folder / BUNDLE
    if not is_there(path):
        return [f"{BUNDLE}: none; copy the newest beside the configuration, and homes follow it"]
    bundle = read_bundle(path, load_certificates(settings.trust_anchor))
    return [f"{BUNDLE}: bundle {bundle.content.number}, handed out to homes"]


def check(
    role: str,
    config: ServiceConfig,
    *,
    tables: Sequence[str],
    schema_version: int,
    check_keys: Callable[[], list[str]],
    check_rows: Callable[[ReadTransaction], list[str]] = nothing_more,
) -> list[str]:
    """Check all that a start needs, and the whole log; returns what to print, raises what is wrong.

    That is the identity, the policy, lists, the keys that ``check_keys`` loads, permissions, the store, the rows that
    ``check_rows`` looks at, and the address. The service must be stopped: a store is open in one process at a time.
    """
    identity = load_identity(config.service)
    rules = len(build_engine(role, config.policy).rules)
    config.service.load_known_keys()
    keys = check_keys()
    make_store_folder(config.store.path)
    revoked = RevokedIdentities(load_certificates(config.service.trust_anchor))

    async def verify() -> str:
        store = open_store(config.store.path, tables=tables, schema_version=schema_version)
        try:
            counts = await store.check()
            head = await verify_stored_log(store)
            await store.view(lambda txn: check_identity_list(txn, config.service.identity_list, revoked))
            lines = await store.view(check_rows)
        finally:
            await store.close()
        rows = ", ".join(f"{name} {count}" for name, count in counts.items())
        tree = f"log: {head.size} entries make the tree {head.root.hex()}"
        return "\n".join([*lines, f"store: {rows}", tree])

    stored = (
        asyncio.run(verify()) if is_there(config.store.path) else "store: none yet; the first start makes it"
    )
    check_address(config.service.listen)
    return [
        *_identity_lines(identity),
        *_bundle_lines(config.service),
        f"policy: {rules} rules",
        *keys,
        _bare_keys_line(config.service.folder),
        stored,
        f"address: {config.service.listen} is free",
        f"{role} is ready to run",
    ]


def _identity_lines(identity: LocalIdentity) -> list[str]:
    """Name the identity; a certificate that ended stops no start, but no other service talks to it."""
    lines = [f"identity: {identity.spiffe_id}"]
    _, until = Validity.of(identity.leaf).dates()
    if until < datetime.now(UTC):
        lines.append(
            f"identity certificate: ended on {until:%Y-%m-%d}; renew it with `keyark identities renew`"
        )
    for anchor in load_pem_certificates(identity.trust_anchor):
        _, until = Validity.of(anchor).dates()
        if until < datetime.now(UTC):
            lines.append(
                f"internal CA: ended on {until:%Y-%m-%d}; run `keyark authority renew`, and replace this "
                "service's trust anchor with its internal-ca.pem"
            )
    return lines


def check_address(address: str) -> None:
    """Raise AddressError unless a service could listen at an address, or at all of several."""
    for place in parse_addresses(address, first_port=0):
        _check_free(place)


def _check_free(address: Address) -> None:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen()
    except (OSError, OverflowError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise AddressError(
            f"Cannot listen at {address}: {why}. Configure an address of this host that no other program "
            "uses."
        ) from None


def backup(
    config: ServiceConfig,
    target: Path,
    *,
    tables: Sequence[str],
    schema_version: int,
    rows: Sequence[Row] = (),
) -> None:
    """Write a consistent copy of the store, and beside it what opens the tokens in it: no other key.

    ``rows`` are written into the copy alone. Raises StoreError.
    """

    async def copy() -> None:
        store = open_store(config.store.path, tables=tables, schema_version=schema_version)
        try:
            await store.backup(target, rows=rows)
        finally:
            await store.close()

    asyncio.run(copy())


def _bare_keys_line(folder: Path) -> str:
    """Say which keys in a service's folder whoever takes its disk can use."""
    bare = unencrypted_keys(folder)
    if not bare:
        return "keys: all in the folder are encrypted"
    names = ", ".join(str(file.relative_to(folder)) for file in bare)
    return f"keys: not encrypted are {names}; `keyark key-password set` encrypts them"
