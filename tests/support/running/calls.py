"""Clients' signed calls, for tests of what the RM hands along."""

from __future__ import annotations

from typing import Any

from keyark.clock import Clock
from keyark.identity.revoked import RevokedIdentities
from keyark.keys.key_types import KeyType
from keyark.service.checks.callers import CallerChecks, CallerSettings
from keyark.statements.approvals import OfficerTrust
from keyark.statements.calls import CallSigner, CallTrust, SignedCall
from tests.support.keys.pki import (
    CA_VALIDITY,
    CALLER,
    NOW,
    TRUST_DOMAIN,
    identity_certificate,
    internal_ca,
    private_key,
)


def call_signer(path: str = CALLER.path, *, number: int = 903, **certificate: Any) -> CallSigner:
    """What signs for an identity of the trust domain."""
    key, options = private_key(KeyType.EC_P256, number), {"validity": CA_VALIDITY, **certificate}
    return CallSigner(certificate=identity_certificate(path, key=key, **options), private_key=key)


def signed_call(*statements: bytes, time: int = NOW, **signer: Any) -> SignedCall:
    """A call that sends these statements; keyword arguments say who signs it."""
    return call_signer(**signer).sign(statements, time=time)


def call_trust(revoked: RevokedIdentities | None = None) -> CallTrust:
    """Believes the internal CA of the tests."""
    anchors = [internal_ca().certificate]
    return CallTrust(
        trust_domain=TRUST_DOMAIN, anchors=anchors, revoked=revoked or RevokedIdentities(anchors)
    )


def caller_checks(clock: Clock) -> CallerChecks:
    """What CM and DRM check, with the internal CA of the tests."""
    anchors, settings = [internal_ca().certificate], CallerSettings()
    return CallerChecks(
        calls=call_trust(),
        officers=OfficerTrust(
            trust_domain=TRUST_DOMAIN,
            anchors=anchors,
            revoked=RevokedIdentities(anchors),
            max_age_seconds=settings.request_seconds,
        ),
        settings=settings,
        clock=clock,
    )
