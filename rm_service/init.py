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
# Where CM and DRM listen.
cm = "$cm"
drm = "$drm"
# How many enrollments may wait for each of them; more are told to try again.
max_waiting = 8192

"""
    + ARCHIVE_TOML
    + """\
[log]
# The Ed25519 key that signs this service's checkpoints.
key = "file:log-key.pem"

[enrollment]
# How long one enrollment may take from acceptance to outcome, seconds.
seconds = 60.0
# How many one caller may have under way; with more it is told to try again.
max_items_per_caller = 2048

[approvals]
# Requests that policy defers wait for a registration officer this long, days.
expire_days = 7
# So many of them at most; more are told to try again.
max_waiting = 10000
# So many of one caller; more are refused, and other callers have their room.
max_waiting_per_caller = 1000
# Whoever submitted a request does not decide on it, and a recovery agent is no officer; compared by name.
separation_of_duties = true

# Policy at the stage "submit". Every rule that applies must accept; see docs/policy.md.
[[policy.rule]]
name = "who-enrolls-whom"
type = "CallerSubjects"
stage = "submit"
# Who may enroll whom: addresses, and common names as regular expressions. A caller that is not named may enroll nobody.
# client/enroller is a registration office here, which may name anybody in the domain. For people who enroll
# themselves: { caller = "client/alice", addresses = ["alice@$trust_domain"], common_names = ["Alice Example"] }
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
