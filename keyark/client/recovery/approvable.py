"""What has to hold at the moment of an approval, by this agent's own clock, key and pins.

The archive dates its leaves, so an expired identity or an old ceremony could come back under a date of its choice.
"""

from __future__ import annotations

from typing import Final

from keyark.client.recovery.archive_pins import ArchivePins
from keyark.client.recovery.review import ReviewedCeremony, mismatch
from keyark.custody.storage import HybridPublicKey
from keyark.errors.recovery import CeremonyClosedError
from keyark.statements.ceremonies import AgentSigner, AgentTrust, verify_request
from keyark.x509.certificates import load_certificate

CLOCK_SECONDS: Final = 180
"""How far the clocks of agents and archive may be apart."""


def check_current(ceremony: ReviewedCeremony, trust: AgentTrust, *, now: int) -> None:
    """Raise unless a ceremony is open at ``now`` (seconds UTC) and everybody in it has an identity in force.

    Raises CeremonyClosedError, CeremonyMismatchError, and what ``verify_request`` and ``AgentShareKey.verify`` raise.
    """
    event = ceremony.opened.event
    if now < event.time_us // 1_000_000 - CLOCK_SECONDS:
        raise mismatch("was opened in the future by this machine's clock; check the clock")
    if now >= event.expires_time_us // 1_000_000:
        raise CeremonyClosedError(
            "The ceremony has expired by this machine's clock; ask again with a new request."
        )
    verify_request(ceremony.view.request, trust, at=now)
    for agent in ceremony.request.agents:
        agent.verify(trust.anchors[0], at=now)
        trust.revoked.check(load_certificate(agent.certificate))


def check_people(
    ceremony: ReviewedCeremony, pins: ArchivePins, signer: AgentSigner, share_key: HybridPublicKey
) -> None:
    """Raise CeremonyMismatchError where no pinned agent asks, or this agent's share would go to another share key.

    A former share key of an agent, lost or stolen, still has that agent's signature.
    """
    if str(ceremony.request.requester) not in pins.agents:
        raise mismatch("was asked for by somebody who is not a pinned agent")
    own = [agent.public_key for agent in ceremony.request.agents if agent.agent == str(signer.identity)]
    if own not in ([], [share_key.to_bytes()]):
        raise mismatch("seals this agent's share to a share key that is not in this agent's folder")
