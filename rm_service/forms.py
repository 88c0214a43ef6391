"""Step 1, serve_form: the profile as the CM has it, and the transport certificate as the DRM has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.pki.transport import TransportTrust
from keyark.service.requests import UnknownProfileError
from keyark.v1.certificates_pb2 import Profile
from keyark.v1.common_pb2 import TransportCertificate
from keyark.v1.registration_pb2 import EnrollmentForm

FRESH_US: Final = 30_000_000


@dataclass(kw_only=True)
class FormSource:
    """Composes forms; what it learned from CM and DRM is taken as fresh for 30 seconds."""

    trust_domain: str
    trust: TransportTrust
    clock: Clock
    fetch_profiles: Callable[[], Awaitable[list[Profile]]]
    fetch_transport_certificates: Callable[[], Awaitable[Sequence[TransportCertificate]]]
    _forms: dict[str, EnrollmentForm] = field(default_factory=dict)
    _transport_certificates: Sequence[TransportCertificate] = ()
    _offered_key_id: str = ""
    _learned_us: int = -FRESH_US
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def get(self, profile: str) -> EnrollmentForm:
        """Return the form of a profile; raises UnknownProfileError."""
        await self._refresh()
        if profile not in self._forms:
            raise UnknownProfileError(
                f"There is no profile {profile!r}; there are {', '.join(sorted(self._forms))}."
            )
        return self._forms[profile]

    async def transport_certificates(self) -> Sequence[TransportCertificate]:
        """Return the DRM's transport certificates, the newest first, verified up to the trust anchor."""
        await self._refresh()
        return self._transport_certificates

    def refused(self, transport_key_id: str) -> None:
        """Heed that the DRM refuses envelopes to a transport key (hexadecimal): it may be the one that forms offer.

        The id of any other is what a client made up, or learned long ago, and costs nobody a call.
        """
        if transport_key_id == self._offered_key_id:
            self.forget()

    def forget(self) -> None:
        """Ask CM and DRM anew when the next form is asked for."""
        self._learned_us = -FRESH_US

    async def _refresh(self) -> None:
        """Learn anew what is no longer fresh; whoever comes meanwhile waits for the one who asks."""
        if self.clock.now_us() - self._learned_us < FRESH_US:
            return
        async with self._asking:
            if self.clock.now_us() - self._learned_us >= FRESH_US:
                await self._learn()

    async def _learn(self) -> None:
        now = self.clock.now_us()
        profiles = await self.fetch_profiles()
        newest, *older = await self.fetch_transport_certificates()
        spki = self.trust.verify(newest, now // 1_000_000)
        self._offered_key_id = sha256(spki).hexdigest()
        self._transport_certificates = [newest, *(old for old in older if self._is_good(old, now))]
        self._forms = {profile.name: self._form(profile) for profile in profiles}
        self._learned_us = now

    def _is_good(self, certificate: TransportCertificate, now_us: int) -> bool:
        """Whether an older certificate may verify receipts; one that may not stops nobody."""
        try:
            self.trust.verify(certificate, now_us // 1_000_000)
        except KeyarkError:
            return False
        return True

    def _form(self, profile: Profile) -> EnrollmentForm:
        newest, *older = self._transport_certificates
        return EnrollmentForm(
            profile=profile.name,
            description=profile.description,
            fields=profile.fields,
            signing_key_types=profile.signing_key_types,
            encryption_key_types=profile.encryption_key_types,
            archival=profile.archival,
            transport_certificate=newest,
            trust_domain=self.trust_domain,
            older_transport_certificates=older,
            caller_signature=profile.caller_signature,
        )
