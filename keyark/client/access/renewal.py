"""Channels that follow their identity: once its files are renewed, the next call presents the new certificate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, cast

from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource
from keyark.errors import KeyarkError
from keyark.rpc.calling.channels import Channel, open_channel
from keyark.rpc.calling.pinning import ServerPin
from keyark.rpc.calling.renewal import CurrentIdentity, RenewableChannel
from keyark.rpc.calling.retries import Retries
from keyark.rpc.identities import LocalIdentity

LOOK_SECONDS: Final = 1.0
"""How often calls look at the files at most."""
AGAIN_SECONDS: Final = 30.0
"""When files that were not good are looked at again."""

logger = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int], ...]


class FollowedIdentity:
    """The identity ``<role>/<name>`` of a home and its channel to a subsystem ("rm"), taken anew with its files.

    ``password`` is asked once, for an encrypted key; ``retries`` are those of idempotent calls. Files that are not
    good are told in the log, and the present identity stays. Raises ConfigurationError, and the errors of keys, for
    those that are there now.
    """

    def __init__(
        self, home: Home, role: str, *, identity: str, password: PasswordSource, retries: Retries
    ) -> None:
        ask = cache(password)
        folder = home.identity_folder(identity)
        self._watch = _Watch((folder / "cert.pem", folder / "key.pem", home.config.trust_anchor))
        self._current = CurrentIdentity(
            home.identity(identity, ask),
            read=lambda: home.identity(identity, ask),
            now=lambda: int(time.time()),
        )
        domain = home.config.trust_domain
        pin = ServerPin(getattr(home.config, role), f"{role}.{domain}", home.revoked)
        channel = RenewableChannel(
            lambda: self._current.value,
            lambda identity: open_channel(pin.address, identity, server_role=role, trust_domain=domain),
            pin=pin,
            before_calls=self._look,
            retries=retries,
        )
        self._current.on_change(channel.renew)
        self.channel = cast("Channel", channel)

    @property
    def value(self) -> LocalIdentity:
        """The identity that the next call presents."""
        self._look()
        return self._current.value

    def _look(self) -> None:
        self._watch.look(self._current.take)


class _Watch:
    """Looks whether files are others than before, now and then."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths
        self._seen, self._next = self._stamp(), time.monotonic() + LOOK_SECONDS

    def look(self, take: Callable[[], None]) -> None:
        if time.monotonic() < self._next:
            return
        stamp, pause = self._stamp(), LOOK_SECONDS
        if stamp != self._seen:
            try:
                take()
                self._seen = stamp
            except KeyarkError as error:
                logger.error("the current identity is kept: %s (%s)", error.message, error.reason)  # noqa: TRY400 — typed
                pause = AGAIN_SECONDS
        self._next = time.monotonic() + pause

    def _stamp(self) -> Stamp:
        return tuple(_stat(path) for path in self._paths)


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
