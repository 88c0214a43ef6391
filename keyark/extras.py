"""What is installed beside the SDK: `keyark[server]` runs services, `keyark[load]` runs load tests.

A command that needs one says so before it changes anything. The distribution itself tells what belongs to an extra.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final, Literal

from keyark.errors import ConfigurationError

DISTRIBUTION: Final = "keyark"

Extra = Literal["server", "load"]


class MissingExtraError(ConfigurationError):
    """A command needs more than the SDK and the command line, and that is not installed."""

    reason = "MISSING_EXTRA"


def need_extra(extra: Extra) -> None:
    """Raise MissingExtraError, which says how to install it, where a distribution that an extra brings is missing."""
    missing = [name for name in _distributions(extra) if not _is_installed(name)]
    if missing:
        raise MissingExtraError(
            f"This needs keyark[{extra}], but {', '.join(missing)} is not installed; run: pip install "
            f"'keyark[{extra}]'"
        )


def _distributions(extra: Extra) -> list[str]:
    """The names of what an extra requires, out of lines such as ``lmdb>=3.0; extra == 'server'``."""
    required = (line.replace('"', "'").partition(";") for line in metadata.requires(DISTRIBUTION) or ())
    return [_name(what) for what, _, marker in required if marker.strip() == f"extra == '{extra}'"]


def _name(requirement: str) -> str:
    name = requirement.strip()
    for position, character in enumerate(name):
        if not (character.isalnum() or character in "-_."):
            return name[:position]
    return name


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
