"""What the `init` of every service does: a folder of its own, its identity key, its configuration file."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyark.addresses import join_addresses, parse_addresses
from keyark.custody.shares import QuorumRule, check_quorum
from keyark.errors import ConfigurationError, InvalidInputError
from keyark.files import PRIVATE, PUBLIC, write_new_file
from keyark.identity.certificates import encode_request, fingerprint, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, SigningPrivateKey, generate_signing
from keyark.keys.private_keys import save_private_key
from keyark.x509.certificates import load_certificates, save_certificates

SERVICE_TOML: Final = """\
[service]
# The deployment's trust domain. Certificates of other trust domains are refused.
trust_domain = "$trust_domain"
# The address of this service.
listen = "$listen"
# Its key and certificate for mutual TLS, and the internal CA that it trusts.
identity_key = "identity-key.pem"
identity_certificate = "identity.pem"
trust_anchor = "trust-anchor.pem"
# The identities that the internal CA has revoked. A changed file is in force within seconds. It may be missing before
# the first revocation, but not afterwards.
revoked_identities = "revoked-identities.crl"
# Lists of publicly known keys, which are refused: blocklists of the badkeys project.
known_keys = []
# How many calls may be in progress at once, and how many MiB their messages may have. One caller may use a quarter of
# each. Further calls have to try again.
max_in_flight = 4096
max_request_mib = 256
# How many seconds open calls may take to end after SIGTERM.
drain_seconds = 8.0
# How many refusals of one caller within an hour are logged individually. Further ones are counted.
rejections_per_hour = 100

[store]
# The folder of the store. Only one process at a time can open it.
path = "store"
# The address space reserved for it, GiB. It uses disk space only as it fills.
map_gib = 1024

"""

WORKERS_TOML: Final = """\
[workers]
# How many processes $work. Best is one for each core.
count = 2
# How many items one worker takes at a time, and how many may wait in all.
max_batch = 64
max_waiting = 8192
# How many seconds a worker may take for a batch before it is replaced.
batch_seconds = 30.0
# After how many batches a worker is replaced, since memory cannot be wiped, only given back.
recycle_after = 20000

"""

ARCHIVE_TOML: Final = """\
[archive]
# The storage keys that an archival receipt may name at first. The DRM's init prints the id.
trusted_storage_keys = ["$storage_key_id"]
# The first recovery agents, and their quorum. Later changes of storage keys and agents count if a quorum approved them;
# they are kept in the store and logged.
agents = $agents
quorum = $quorum
# Whether the agent who asks for a change may be part of the quorum.
self_approval = $self_approval

"""

DETAILS_TOML: Final = """
# Which auditors see the personal details of log entries: names, addresses, reasons, who decided. An auditor without a
# grant sees only types, times, ids and hashes. To grant some types of entries only, for example:
# events = ["REQUEST_REJECTED", "REJECTIONS_COUNTED"]
[[policy.details]]
auditors = ["auditor/*"]
events = ["*"]
"""

CALLERS_TOML: Final = """\
[callers]
# How many days a caller's signed call counts while its request waits for an officer, as [approvals] expire_days of
# rm.toml. After the approval it counts as long again. Without an officer's approval, it counts for 15 minutes.
request_days = 7

"""


def listen_address(text: str) -> str:
    """Take where a service listens from a command line."""
    return _addresses(text, first_port=0)


def called_address(text: str) -> str:
    """Take where another service is called from a command line."""
    return _addresses(text, first_port=1)


def _addresses(text: str, *, first_port: int) -> str:
    try:
        return join_addresses(parse_addresses(text, first_port=first_port))
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every service's `init` asks for."""
    parser.add_argument("--trust-domain", required=True)
    parser.add_argument(
        "--listen", required=True, type=listen_address, help="HOST:PORT, or several separated by commas"
    )
    parser.add_argument(
        "--trust-anchor", required=True, type=Path, help="certificate of the internal CA, PEM"
    )
    parser.add_argument(
        "--fingerprint",
        metavar="HEX",
        help="fingerprint of the internal CA, as the authority's operator told you; another "
        "--trust-anchor is refused",
    )
    parser.add_argument(
        "--key-password",
        metavar="SOURCE",
        help="encrypt the keys with the password from this source: file:/PATH, credential:NAME of "
        "systemd, or descriptor:N",
    )


def add_archive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the `init` of a service asks for that believes archival receipts."""
    parser.add_argument(
        "--storage-key-id", required=True, help="the storage key id that the DRM's init printed"
    )
    parser.add_argument(
        "--agent",
        action="append",
        required=True,
        help="agent/NAME; repeat it for each agent of the DRM's init",
    )
    parser.add_argument("--quorum", required=True, type=int, help="the same as for the DRM's init")
    parser.add_argument(
        "--quorum-rule",
        choices=[rule.value for rule in QuorumRule],
        default=QuorumRule.SEPARATE.value,
        help="the same as for the DRM's init",
    )


def archive_values(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the values of ARCHIVE_TOML; raises QuorumError for a quorum that the agents cannot reach."""
    rule = QuorumRule(arguments.quorum_rule)
    check_quorum(len(set(arguments.agent)), arguments.quorum, rule=rule)
    return {
        "storage_key_id": arguments.storage_key_id,
        "agents": json.dumps(arguments.agent),
        "quorum": arguments.quorum,
        "self_approval": str(rule is not QuorumRule.SEPARATE).lower(),
    }


def check_anchor(trust_anchor: Path, expected: str | None) -> str:
    """Return the fingerprint of the internal CA; raises ConfigurationError where another one is expected."""
    found = fingerprint(load_certificates(trust_anchor)[0])
    if expected is not None and expected.lower() != found:
        raise ConfigurationError(
            f"The internal CA in {trust_anchor} has the fingerprint {found}, which is not the expected "
            "one; ask the authority's operator for both again."
        )
    return found


def init_identity(folder: Path, *, trust_domain: str, role: str, trust_anchor: Path) -> None:
    """Make the service's identity key and the request for its certificate, and keep the trust anchor.

    The certificate that the internal CA issues goes to identity.pem beside them.
    """
    key = new_signing_key(folder / "identity-key.pem", KeyType.EC_P256)
    save_request(folder / "identity.csr", request_identity(key, SpiffeId(trust_domain, role)))
    save_certificates(folder / "trust-anchor.pem", load_certificates(trust_anchor))


def new_signing_key(path: Path, key_type: KeyType) -> SigningPrivateKey:
    """Make a private key that signs, and save it (0600)."""
    key = generate_signing(key_type)
    save_private_key(path, key)
    return key


def init_log_key(folder: Path) -> None:
    """Make the Ed25519 key that signs the service's checkpoints: log-key.pem, and log.pub.pem for auditors."""
    key = new_signing_key(folder / "log-key.pem", KeyType.ED25519)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_new_file(folder / "log.pub.pem", public, mode=PUBLIC)


def save_request(path: Path, request: x509.CertificateSigningRequest) -> None:
    """Write a certificate signing request, PEM."""
    write_new_file(path, encode_request(request), mode=PUBLIC)


def key_type_names(key_types: Sequence[KeyType]) -> str:
    """Return the lines of a list of key types in a configuration file."""
    names = ", ".join(f'"{key_type.value}"' for key_type in key_types) + ","
    return textwrap.fill(names, width=100, initial_indent="    ", subsequent_indent="    ")


def write_config(path: Path, template: str, **values: object) -> None:
    """Write a configuration file from its template; every placeholder needs a value."""
    write_new_file(path, Template(template).substitute(values).encode(), mode=PRIVATE)
