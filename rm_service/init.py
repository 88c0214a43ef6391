"""`keyark-rm init`: log key and configuration."""

from __future__ import annotations

import argparse
from typing import Final

from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES
from keyark.service.program.initialization import (
    ARCHIVE_TOML,
    DETAILS_TOML,
    SERVICE_TOML,
    add_archive_arguments,
    add_service_arguments,
    archive_values,
    called_address,
    init_identity,
    init_log_key,
    key_type_names,
    write_config,
)

CONFIG: Final = (
    "# The Registration Manager. Relative paths start at this file's folder.\n\n"
    + SERVICE_TOML
    + """\
[downstream]
# The addresses of CM and DRM.
cm = "$cm"
drm = "$drm"
# How many enrollments may wait for each of them. Further ones have to try again.
max_waiting = 8192

"""
    + ARCHIVE_TOML
    + """\
[log]
# The Ed25519 key that signs this service's checkpoints.
key = "file:log-key.pem"

[enrollment]
# How many seconds one enrollment may take, from acceptance to outcome.
seconds = 60.0
# How many enrollments one caller may have in progress. Further ones have to try again.
max_items_per_caller = 2048

[approvals]
# How many days requests that policy defers wait for a registration officer.
expire_days = 7
# How many requests may wait in all. Further ones have to try again.
max_waiting = 10000
# How many requests of one caller may wait, so that no caller fills the queue for the others.
max_waiting_per_caller = 1000
# Whether those who submitted a request, and recovery agents, may not decide on requests. People are compared by name.
separation_of_duties = true

# Policy at the stage "submit". All rules that apply must accept; see docs/policy.md.
[[policy.rule]]
name = "who-enrolls-whom"
type = "CallerSubjects"
stage = "submit"
# Who may enroll whom: addresses, and common names as regular expressions. A caller without a grant may enroll nobody.
# Here, client/enroller is a registration office, which may enroll anybody in the domain. A grant for one person:
# { caller = "client/alice", addresses = ["alice@$trust_domain"], common_names = ["Alice Example"] }
callers = [{ caller = "client/enroller", domains = ["$trust_domain"], common_names = [".+"] }]

[[policy.rule]]
name = "requested-key-types"
type = "KeyTypes"
stage = "submit"
signing = [
$signing_key_types
]
encryption = [
$encryption_key_types
]
"""
    + DETAILS_TOML
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the RM's `init` asks for."""
    add_service_arguments(parser)
    parser.add_argument(
        "--cm", required=True, type=called_address, help="HOST:PORT of the Certificate Manager"
    )
    parser.add_argument(
        "--drm", required=True, type=called_address, help="HOST:PORT of the Data Recovery Manager"
    )
    add_archive_arguments(parser)


def init(arguments: argparse.Namespace) -> dict[str, str]:
    """Make the RM's folder."""
    folder = arguments.folder
    init_identity(folder, trust_domain=arguments.trust_domain, role="rm", trust_anchor=arguments.trust_anchor)
    init_log_key(folder)
    write_config(
        folder / "rm.toml",
        CONFIG,
        trust_domain=arguments.trust_domain,
        listen=arguments.listen,
        cm=arguments.cm,
        drm=arguments.drm,
        signing_key_types=key_type_names(SIGNING_KEY_TYPES),
        encryption_key_types=key_type_names(ENCRYPTION_KEY_TYPES),
        **archive_values(arguments),
    )
    return {}
