"""Errors of commands themselves: of `keyark`, and of the services' programs."""

from __future__ import annotations

from keyark.errors import ConfigurationError, KeyarkError, Kind


class UsageError(ConfigurationError):
    """The command line is not valid."""

    reason = "USAGE"
    remedy = "Correct the command; `--help` explains its options."


class StoppedError(KeyarkError):
    """A person pressed Ctrl-C, or a program sent SIGINT."""

    reason = "STOPPED"
    kind = Kind.PRECONDITION
    remedy = "Run the same command again; it goes on."

    @classmethod
    def before_the_end(cls) -> StoppedError:
        """Return it with its sentence."""
        return cls("Stopped before the end. Completed steps stay done; run the same command again to go on.")


class SystemRefusalError(KeyarkError):
    """The operating system refused something to a command: a full disk, another user's file, a name that is too
    long.
    """

    reason = "SYSTEM_REFUSAL"
    kind = Kind.PRECONDITION
    remedy = "Free some disk space, grant access, or use another name, as the message says."
