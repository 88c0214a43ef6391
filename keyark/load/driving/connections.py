"""What a client process shares among its kinds of calls: channels, and the enrollments that it knows of."""

from __future__ import annotations

from typing import Final

from keyark.addresses import parse_addresses
from keyark.client.access.home import Home
from keyark.client.access.passwords import no_password
from keyark.client.trust.verification import Verification
from keyark.load.driving.known import KnownEnrollments
from keyark.load.planning.plan import LoadPlan
from keyark.rpc.calling.channels import Channel, call, open_channel
from keyark.rpc.identities import LocalIdentity
from keyark.v1 import registration_pb2 as rm
from keyark.v1.registration_pb2_grpc import RegistrationServiceStub

TIMEOUT: Final = 60.0


class Connections:
    """Channels to the subsystems as the plan's identities, and what this process knows of the deployment."""

    def __init__(self, plan: LoadPlan, home: Home, *, seed: int) -> None:
        self.plan, self.home = plan, home
        self.known = KnownEnrollments(plan.known, seed=seed)
        self._channels: dict[tuple[str, str], Channel] = {}
        self._identities: dict[str, LocalIdentity] = {}

    def channel(self, role: str, identity: str) -> Channel:
        """Return the channel to a subsystem as an identity; it is opened once."""
        if (role, identity) not in self._channels:
            self._channels[role, identity] = open_channel(
                str(parse_addresses(getattr(self.home.config, role))[0]),
                self.identity(identity),
                server_role=role,
                trust_domain=self.home.config.trust_domain,
            )
        return self._channels[role, identity]

    def identity(self, name: str) -> LocalIdentity:
        """Return one of the home's identities; it is loaded once."""
        if name not in self._identities:
            self._identities[name] = self.home.identity(name, no_password)
        return self._identities[name]

    async def form(self) -> rm.EnrollmentForm:
        """Fetch the form of the plan's profile."""
        stub = RegistrationServiceStub(self.channel("rm", self.plan.client))
        known = Verification(self.home).known_key_id
        request = rm.GetEnrollmentFormRequest(profile=self.plan.profile, known_transport_key_id=known)
        return (await call(stub.GetEnrollmentForm, request, timeout=TIMEOUT)).form

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close()
