"""What `keyark doctor` tells: findings, each with the command that repairs it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource
from keyark.client.access.sessions import Session, open_session
from keyark.errors import ConfigurationError, KeyarkError
from keyark.keys.private_keys import PasswordRequiredError, WrongPasswordError
from keyark.rpc.calling.retries import NO_RETRIES

UNDER_WAY: Final = 600
"""Seconds after which what was begun should be done."""


class Severity(enum.Enum):
    """How urgent a finding is."""

    ERROR = "error"
    """Something does not work, or will not be told."""
    WARNING = "warning"
    """Something will not work unless it is done in time."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is not as it should be: ``subject`` is what, ``text`` is why, ``command`` repairs it."""

    severity: Severity
    subject: str
    text: str
    command: str


def error(subject: str, text: str, command: str) -> Finding:
    """Return a finding of what does not work."""
    return Finding(severity=Severity.ERROR, subject=subject, text=text, command=command)


def warning(subject: str, text: str, command: str) -> Finding:
    """Return a finding of what will not work."""
    return Finding(severity=Severity.WARNING, subject=subject, text=text, command=command)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A deployment that is looked at: as its people in ``home``, at ``now()`` (seconds UTC).

    What ends within ``within`` seconds is told.
    """

    home: Home
    password: PasswordSource
    now: Callable[[], float]
    within: int

    def person(self, role: str) -> str:
        """Return the first identity of a role ("agent/alice"); raises ConfigurationError where the home has none."""
        names = sorted(path.parent.name for path in self.home.folder.glob(f"identities/{role}/*/key.pem"))
        if not names:
            raise ConfigurationError(
                f"This home has no identity of the role {role}, which this check needs; run it where there is "
                "one."
            )
        return f"{role}/{names[0]}"

    def fault_of(self, role: str, left_out: str) -> Finding | None:
        """Return why this home cannot act in a role, and what is therefore left out; None where it can."""
        again = f"keyark doctor --home {self.home.folder}"
        try:
            self.home.identity(self.person(role), self.password)
        except (PasswordRequiredError, WrongPasswordError) as failure:
            told, command = failure.message, f"{again} --identity-password-file FILE"
        except KeyarkError as failure:
            told, command = failure.message, f"{again}  # in a home with an {role}"
        else:
            return None
        return error("this home", f"{told} Left out: {left_out}.", command)

    def session(self, service: str, role: str) -> AbstractAsyncContextManager[Session]:
        """Open a session with a service as somebody of a role; raises ConfigurationError."""
        return open_session(
            self.home, service, identity=self.person(role), password=self.password, retries=NO_RETRIES
        )

    def service_file(self, role: str) -> Path:
        """Return where a service's configuration is on its host; below this home where it is this machine."""
        return self.home.folder / role / f"{role}.toml"
