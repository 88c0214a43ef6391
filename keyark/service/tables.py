"""Names of tables that every subsystem has, for those who need no more than the name."""

from __future__ import annotations

from typing import Final

POLICY: Final = "policy"
"""Which policy is in force: see ``keyark.service.live_policy``."""
