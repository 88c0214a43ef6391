"""Names of tables that every subsystem has, for those who need no more than the name."""

from __future__ import annotations

from typing import Final

POLICY: Final = "policy"
"""Which policy is in force: see ``keyark.service.checks.live_policy``."""
IDENTITY_LISTS: Final = "identity_lists"
"""The lists of revoked identities that were taken: see ``keyark.service.program.identity_list``."""
