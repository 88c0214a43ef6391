"""Step 1, serve_form: the profile as the CM has it, and the transport certificate as the DRM has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from keyark.clock import Clock
from keyark.errors.enrollment import UnknownProfileError
from keyark.identity.spiffe import SpiffeId
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.transport_keys import FollowedTransportKeys, certified_key_id
from keyark.v1.archive_pb2 import ListTransportKeyChangesResponse
from keyark.v1.audit_pb2 import TransportKeyChange
from keyark.v1.certificates_pb2 import Profile
from keyark.v1.common_pb2 import TransportCertificate
from keyark.v1.registration_pb2 import EnrollmentForm

FRESH_US: Final = 30_000_000
AGAIN_US: Final = 1_000_000
"""How soon CM and DRM are asked again for a client that knows a transport key which is not known here."""


@dataclass(kw_only=True)
class FormSource:
    """Composes forms; what it learned from CM and DRM is taken as fresh for 30 seconds."""

    trust_domain: str
    clock: Clock
    fetch_profiles: Callable[[], Awaitable[list[Profile]]]
    fetch_transport_keys: Callable[[], Awaitable[ListTransportKeyChangesResponse]]
    keys: FollowedTransportKeys
    follow: Callable[[ArchiveEvidence], Awaitable[None]]
    _forms: dict[str, EnrollmentForm] = field(default_factory=dict)
    _offered: TransportCertificate = field(default_factory=TransportCertificate)
    _changes: Sequence[tuple[bytes, TransportKeyChange]] = ()
    _learned_us: int = -FRESH_US
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def get(self, profile: str) -> EnrollmentForm:
        """Return the form of a profile; raises UnknownProfileError."""
        await self.refresh()
        if profile not in self._forms:
            raise UnknownProfileError(
                f"There is no profile {profile!r}. These exist: {', '.join(sorted(self._forms))}."
            )
        return self._forms[profile]

    def transport_key_changes(self, known_key_id: bytes) -> Sequence[TransportKeyChange]:
        """Return the changes, as learned last, after a key (id: 32 bytes) that a client knows; all for another key."""
        if not known_key_id or known_key_id == self.keys.newest_id:
            return ()
        ids = [key_id for key_id, _ in self._changes]
        after = ids.index(known_key_id) + 1 if known_key_id in ids else 0
        return [change for _, change in self._changes[after:]]

    async def transport_certificate(self) -> TransportCertificate:
        """Return the DRM's transport certificate, of the key in force."""
        await self.refresh()
        return self._offered

    def meet(self, known_key_id: bytes) -> None:
        """Heed that a client knows a transport key (id: 32 bytes; empty for none): one that is unknown may be newer.

        Then CM and DRM are asked anew, once a second at most, whatever clients make up.
        """
        if not known_key_id or known_key_id in self.keys.known_ids:
            return
        if self.clock.now_us() - self._learned_us >= AGAIN_US:
            self.forget()

    def refused(self, transport_key_id: str) -> None:
        """Heed that the DRM refuses envelopes to a transport key (hexadecimal): it may be the one that forms offer.

        The id of any other is what a client made up, or learned long ago, and costs nobody a call.
        """
        if transport_key_id == self.keys.newest_id.hex():
            self.forget()

    def forget(self) -> None:
        """Ask CM and DRM anew when the next form is asked for."""
        self._learned_us = -FRESH_US

    async def refresh(self) -> None:
        """Learn anew what is no longer fresh; whoever comes meanwhile waits for the one who asks."""
        if self.clock.now_us() - self._learned_us < FRESH_US:
            return
        async with self._asking:
            if self.clock.now_us() - self._learned_us >= FRESH_US:
                await self._learn()

    async def _learn(self) -> None:
        """Ask CM and DRM; the transport keys are followed, and what is offered has to be of the one in force."""
        now = self.clock.now_us()
        profiles = await self.fetch_profiles()
        learned = await self.fetch_transport_keys()
        await self.follow(
            ArchiveEvidence(
                brought_by=str(SpiffeId(self.trust_domain, "drm")),
                links=(),
                transport_certificates=[learned.transport_certificate],
                transport_key_changes=learned.changes,
            )
        )
        self.keys.check_is_newest(learned.transport_certificate)
        self._offered = learned.transport_certificate
        self._changes = [(certified_key_id(change.certificate), change) for change in learned.changes]
        self._forms = {profile.name: self._form(profile) for profile in profiles}
        self._learned_us = now

    def _form(self, profile: Profile) -> EnrollmentForm:
        return EnrollmentForm(
            profile=profile.name,
            description=profile.description,
            fields=profile.fields,
            signing_key_types=profile.signing_key_types,
            encryption_key_types=profile.encryption_key_types,
            archival=profile.archival,
            transport_certificate=self._offered,
            trust_domain=self.trust_domain,
            caller_signature=profile.caller_signature,
        )
