"""`keyark-cm init`: the CA key and the request for its certificate, log key, configuration."""

from __future__ import annotations

import argparse
from typing import Final

from cm_service.issuer.profiles import READY
from keyark.keys.key_types import CA_KEY_TYPES, parse_key_type
from keyark.service.program.initialization import (
    ARCHIVE_TOML,
    CALLERS_TOML,
    DETAILS_TOML,
    SERVICE_TOML,
    WORKERS_TOML,
    add_archive_arguments,
    add_service_arguments,
    archive_values,
    init_identity,
    init_log_key,
    new_signing_key,
    save_request,
    write_config,
)
from keyark.x509.authority import ca_name, request_ca

CONFIG: Final = (
    "# The Certificate Manager. Relative paths start at this file's folder.\n\n"
    + SERVICE_TOML
    + WORKERS_TOML.replace("$work", "sign certificates")
    + """\
[issuer]
# The CA key, and the CA's certificate followed by those above it.
key = "file:ca-key.pem"
chain = "ca.pem"
# The number of this key, and earlier keys, which only sign lists and OCSP answers. `keyark ca rollover` changes both.
generation = 0
earlier = []

[log]
# The Ed25519 key that signs this service's checkpoints.
key = "file:log-key.pem"

"""
    + ARCHIVE_TOML
    + CALLERS_TOML
    + """\
# A profile decides what certificates contain; docs/profiles.md explains every key. `base` names a ready
# profile; the other keys change it.
[profiles.pq]
base = "pq"

[profiles.signing-only]
base = "signing-only"

# [profiles.smime-strict]
# base = "smime-strict"
# crl_urls = ["http://pki.example.org/ca.crl"]
# ca_issuer_urls = ["http://pki.example.org/ca.cer"]

[profiles.user]
"""
    + (READY / "user.toml").read_text()
    + """

[crl]
# The folder for certificate revocation lists, for any web server; see docs/certificates.md.
folder = "crls"
# How often a full list is made, and how long it stays valid after the next one is due.
every_hours = 24
overlap_hours = 24
# How often a delta list is made (0: never), and its URLs.
delta_every_minutes = 0
delta_urls = []
# Into how many lists certificates are divided by serial number: a power of two up to 256.
shards = 1

# Plain HTTP for lists, CA certificates and OCSP; see docs/certificates.md.
# [http]
# listen = "0.0.0.0:8080"
# max_connections = 256
# How long caches may keep something at most.
# max_age_seconds = 3600

[ocsp]
# OCSP on the HTTP port, if there is one. The CM makes and renews the responder's key and certificate itself.
responder = "ocsp-responder.pem"
responder_days = 7
# How many minutes an answer is valid.
valid_minutes = 60
workers = 1

# Policy at the stage "issue". All rules that apply must accept; see docs/policy.md.
[[policy.rule]]
name = "issued-validity"
type = "Validity"
stage = "issue"
max_days = 825

# When people may renew. Without this rule: at any time before their certificates expire.
# [[policy.rule]]
# name = "renewal-window"
# type = "Renewal"
# stage = "renew"
# days_before_expiry = 60

[[policy.rule]]
name = "archived-before-issued"
type = "ReceiptRequired"
stage = "issue"
profiles = ["user", "pq"]
"""
    + DETAILS_TOML
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the CM's `init` asks for."""
    add_service_arguments(parser)
    parser.add_argument("--ca-key", default="ec-p256", help=" ".join(t.value for t in CA_KEY_TYPES))
    parser.add_argument("--ca-name", required=True, help="common name of the issuing CA")
    add_archive_arguments(parser)


def init(arguments: argparse.Namespace) -> dict[str, str]:
    """Make the CM's folder; a root signs ca.csr, and its answer followed by the root goes to ca.pem."""
    key_type = parse_key_type(arguments.ca_key, permitted=CA_KEY_TYPES, field="--ca-key")
    folder = arguments.folder
    init_identity(folder, trust_domain=arguments.trust_domain, role="cm", trust_anchor=arguments.trust_anchor)
    key = new_signing_key(folder / "ca-key.pem", key_type)
    save_request(folder / "ca.csr", request_ca(key, subject=ca_name(arguments.ca_name)))
    init_log_key(folder)
    write_config(
        folder / "cm.toml",
        CONFIG,
        trust_domain=arguments.trust_domain,
        listen=arguments.listen,
        **archive_values(arguments),
    )
    return {}
