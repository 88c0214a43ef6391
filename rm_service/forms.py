"""Step 1, serve_form: the profile as the CM has it, and the transport certificate as the DRM has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from keyark.clock import Clock
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
    fetch_transport_certificate: Callable[[], Awaitable[TransportCertificate]]
    _forms: dict[str, EnrollmentForm] = field(default_factory=dict)
    _transport_certificate: TransportCertificate | None = None
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

    async def transport_certificate(self) -> TransportCertificate:
        """Return the DRM's newest transport certificate, verified up to the trust anchor."""
        await self._refresh()
        if self._transport_certificate is None:  # pragma: no cover — _refresh sets it or raises
            raise AssertionError
        return self._transport_certificate

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
        certificate = await self.fetch_transport_certificate()
        self.trust.verify(certificate, now // 1_000_000)
        self._transport_certificate = certificate
        self._forms = {profile.name: self._form(profile, certificate) for profile in profiles}
        self._learned_us = now

    def _form(self, profile: Profile, certificate: TransportCertificate) -> EnrollmentForm:
        return EnrollmentForm(
            profile=profile.name,
            description=profile.description,
            fields=profile.fields,
            signing_key_types=profile.signing_key_types,
            encryption_key_types=profile.encryption_key_types,
            archival=profile.archival,
            transport_certificate=certificate,
            trust_domain=self.trust_domain,
        )
