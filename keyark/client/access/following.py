"""A home follows its deployment: a service hands a later bundle out, and the internal CA's signature counts.

What services say cannot take a home back, nor to another deployment. A service that hands out none keeps a home as it
is; then `keyark home update` takes one that came in another way.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Final, Self, TypeAlias, cast

from keyark.client.access.bundles import update_home
from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource
from keyark.client.access.renewal import FollowedIdentity
from keyark.errors import KeyarkError
from keyark.files import read_file
from keyark.identity.bundles import BUNDLE, MAX_BUNDLE, Bundle
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.rpc.calling.channels import Channel, UnaryCall, call
from keyark.rpc.calling.retries import Retries
from keyark.v1 import deployment_pb2 as pb
from keyark.v1.deployment_pb2_grpc import DeploymentServiceStub

SECONDS: Final = 5.0
"""How long a service may take to say that it has no later bundle."""

logger = logging.getLogger(__name__)

_Method: TypeAlias = "UnaryCall[pb.GetDeploymentBundleRequest, pb.GetDeploymentBundleResponse]"


async def follow_deployment(home: Home, channel: Channel) -> Home:
    """Return the home as the newest bundle says that the service has; the same home where it has none.

    Raises the errors of the call where the service does not answer. What it hands out and is no later bundle of this
    deployment is told in the log, and so is a home that cannot be written; both change nothing.
    """
    number = _number(home.folder)
    if number is None:  # a home that was written by hand
        return home
    request = pb.GetDeploymentBundleRequest(known_number=number)
    stub = DeploymentServiceStub(channel)
    # Not repeated, whatever the channel's retries are: it is asked again when the next channel is opened.
    method = cast("_Method", partial(stub.GetDeploymentBundle))
    answer = await call(method, request, timeout=SECONDS)
    if not answer.bundle:
        return home
    try:
        bundle = Bundle.parse(answer.bundle)
        await asyncio.to_thread(update_home, home.folder, bundle)
    except (KeyarkError, OSError) as error:
        logger.warning("a later bundle of the deployment was not taken into %s: %s", home.folder, error)
        return home
    return Home.load(home.folder)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How channels are opened: as which identity, with whose password, and how idempotent calls are repeated."""

    identity: str
    password: PasswordSource = field(repr=False)
    retries: Retries

    @classmethod
    def of(cls, identity: str, password: PasswordSource, retries: Retries) -> Self:
        """Return it with a ``password`` that is asked once, however many channels are opened."""
        return cls(identity=identity, password=cache(password), retries=retries)

    def open(self, home: Home, role: str) -> FollowedIdentity:
        """Open a channel to a subsystem ("rm"); raises as ``FollowedIdentity`` does."""
        return FollowedIdentity(
            home, role, identity=self.identity, password=self.password, retries=self.retries
        )

    async def follow(self, home: Home, role: str, local: FollowedIdentity) -> tuple[Home, FollowedIdentity]:
        """Return the home after it followed its deployment, and the channel to use: another one if the home changed.

        ``local`` is the channel to the subsystem. Where that does not answer, the others are asked, since it may listen
        at another address now. A service that is away is nothing to raise here: the caller's own call tells it.
        """
        try:
            newest = await follow_deployment(home, local.channel)
        except KeyarkError as error:
            newest = await self._ask_others(home, role) if error.kind.leaves_outcome_unknown else home
        if newest is home:
            return home, local
        await local.channel.close()
        return newest, self.open(newest, role)

    async def _ask_others(self, home: Home, role: str) -> Home:
        for other in SERVICE_ROLES:
            if other == role:
                continue
            local = self.open(home, other)
            try:
                newest = await follow_deployment(home, local.channel)
            except KeyarkError:
                continue
            finally:
                await local.channel.close()
            if newest is not home:
                return newest
        return home


def _number(folder: Path) -> int | None:
    path = folder / BUNDLE
    if not path.is_file():
        return None
    return Bundle.parse(read_file(path, max_size=MAX_BUNDLE)).content.number
