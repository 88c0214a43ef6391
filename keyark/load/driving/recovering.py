"""Recovery as a kind of call: one agent asks for a key, others approve until it is ready, and the key is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from keyark.client.access.passwords import no_password
from keyark.client.access.sessions import Session
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.client.recovery.client import RecoveryClient
from keyark.client.recovery.recipients import RecoveredKey
from keyark.client.trust.witnesses import FOLLOWERS
from keyark.errors import ConfigurationError, KeyarkError
from keyark.keys.spki import public_key_id
from keyark.load.driving.connections import Connections
from keyark.load.driving.known import Issued
from keyark.load.measuring.checking import WrongAnswerError
from keyark.load.planning.plan import RECOVER
from keyark.v1.recovery_pb2 import CeremonyState

REASON: Final = "load test"


@dataclass(frozen=True)
class KeyWanted:
    """An enrollment whose key is asked for, and the key's id: SHA-256 of its SPKI."""

    issued: Issued
    key_id: bytes


class Recover:
    """Whole ceremonies, from the request to the acknowledgement; their latency is that of all calls together.

    The first of the plan's agents asks and the others approve, one after the other.
    """

    kind = RECOVER

    def __init__(self, connections: Connections) -> None:
        names = connections.plan.agents
        if len(names) < 2:
            raise ConfigurationError("Recovery needs an agent who asks and one who approves; name both.")
        self._known = connections.known
        self._asking, *self._approving = (_client(connections, f"agent/{name}") for name in names)

    def prepare(self) -> KeyWanted:
        """Choose an enrollment."""
        issued = self._known.choose()
        certificate = x509.load_der_x509_certificate(issued.certificate)
        return KeyWanted(issued, public_key_id(certificate.public_key()))

    async def send(self, request: KeyWanted) -> Sequence[RecoveredKey]:
        """Hold the ceremony; the SDK verifies what the agents see and proves that the key matches."""
        asked = await self._asking.request_keys([request.key_id], reason=REASON)
        for agent in self._approving:
            seen = await agent.approve(await agent.review(asked.ceremony_id))
            if seen.view.state != CeremonyState.CEREMONY_STATE_OPEN:
                break
        recovered = await self._asking.collect(asked.ceremony_id)
        await self._asking.acknowledge(asked.ceremony_id)
        return recovered

    def check(self, request: KeyWanted, answer: Sequence[RecoveredKey]) -> list[KeyarkError]:
        """The one key is that of the enrollment's own certificate."""
        if [key.key_id for key in answer] == [request.key_id]:
            return []
        return [WrongAnswerError("Another key was recovered than the one that was asked for.")]

    def size(self, request: KeyWanted) -> int:
        """One key."""
        return 1


def _client(connections: Connections, identity: str) -> RecoveryClient:
    archive, *followers = [
        Session(home=connections.home, role=role, channel=connections.channel(role, identity))
        for role in ("drm", *FOLLOWERS)
    ]
    keys = AgentKeys.of(connections.home, identity, no_password)
    return RecoveryClient(archive, keys, followers=followers)
