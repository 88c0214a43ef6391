"""Channels to the subsystems of a home as one of its identities."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from keyark.client.access.following import Opening
from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource, no_password
from keyark.client.access.transport_memory import follow_transport_keys
from keyark.errors import KeyarkError
from keyark.rpc.calling.channels import Channel
from keyark.rpc.calling.retries import DEFAULT_RETRIES, Retries


@dataclass(frozen=True, kw_only=True)
class Session:
    """A channel to one service ("rm", "cm", "drm")."""

    home: Home
    role: str
    channel: Channel


@asynccontextmanager
async def open_session(
    home: Path | str | Home,
    role: str,
    *,
    identity: str,
    password: PasswordSource = no_password,
    retries: Retries = DEFAULT_RETRIES,
) -> AsyncIterator[Session]:
    """Open a channel to a service as ``identity``; if it is renewed, the channel uses the new one.

    The home follows its deployment first: ``keyark.client.access.following``. ``password`` is called if the
    identity's key is encrypted. ``retries`` repeats idempotent calls. Raises ConfigurationError.
    """
    opened = home if isinstance(home, Home) else Home.load(home)
    opening = Opening.of(identity, password, retries)
    opened, followed = await opening.follow(opened, role, opening.open(opened, role))
    try:
        if role == "drm" and identity.startswith(("agent/", "auditor/")):
            # Where it is refused or away, its heads are believed under the transport key that is known.
            with contextlib.suppress(KeyarkError):
                await follow_transport_keys(opened, followed.channel)
        yield Session(home=opened, role=role, channel=followed.channel)
    finally:
        await followed.channel.close()
