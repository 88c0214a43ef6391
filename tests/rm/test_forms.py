"""Step 1: forms are composed from what CM and DRM say, asked once for all who wait, and believed only if verified."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from keyark.clock import ManualClock
from keyark.errors import KeyarkError, UnavailableError
from keyark.errors.enrollment import UnknownProfileError
from keyark.identity.transport import TransportTrust
from keyark.keys.key_types import KeyType
from keyark.keys.spki import encode_spki
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1.archive_pb2 import ListTransportKeyChangesResponse
from keyark.v1.certificates_pb2 import Profile
from keyark.v1.common_pb2 import ArchivalPolicy, TransportCertificate
from keyark.x509.certificates import encode_certificate
from rm_service.enrollment.forms import FRESH_US, FormSource
from tests.support.keys.pki import NOW, identity_certificate, internal_ca, private_key


def full_profile() -> Profile:
    """A profile none of whose fields has its default."""
    profile = Profile(archival=ArchivalPolicy.ARCHIVAL_POLICY_REQUIRED)
    for field in Profile.DESCRIPTOR.fields:
        value: object = "user" if field.type == field.TYPE_STRING else 1
        if field.is_repeated:
            getattr(profile, field.name).append(value)
        elif not profile.HasField(field.name) if field.has_presence else not getattr(profile, field.name):
            setattr(profile, field.name, value)
    return profile


FULL_PROFILE = full_profile()


class Downstream:
    """CM and DRM, counted."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.path, self.number = "drm/transport", 905

    async def profiles(self) -> list[Profile]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise UnavailableError("away")
        return [FULL_PROFILE]

    async def transport_keys(self) -> ListTransportKeyChangesResponse:
        certificate = identity_certificate(self.path, key=private_key(KeyType.EC_P256, self.number))
        self.served = TransportCertificate(certificate=encode_certificate(certificate))
        return ListTransportKeyChangesResponse(transport_certificate=self.served)


def source(downstream: Downstream, clock: ManualClock) -> FormSource:
    trust = TransportTrust(anchors=[internal_ca().certificate], trust_domain="example.org")
    keys = FollowedTransportKeys(trust)

    async def follow(evidence: ArchiveEvidence) -> None:
        keys.begin(evidence.transport_certificates[0], at=clock.now_us() // 1_000_000)

    return FormSource(
        trust_domain="example.org",
        clock=clock,
        fetch_profiles=downstream.profiles,
        fetch_transport_keys=downstream.transport_keys,
        keys=keys,
        follow=follow,
    )


async def test_a_form_says_what_the_profile_says_and_whom_to_wrap_to() -> None:
    downstream = Downstream()
    forms = source(downstream, ManualClock(NOW * 1_000_000))
    form = await forms.get("user")
    assert (form.profile, form.trust_domain) == ("user", "example.org")
    assert form.archival == ArchivalPolicy.ARCHIVAL_POLICY_REQUIRED
    assert form.transport_certificate == downstream.served


async def test_a_form_has_every_field_of_the_profile() -> None:
    """Also one that somebody adds: the RM hands on what the CM says."""
    downstream = Downstream()
    forms = source(downstream, ManualClock(NOW * 1_000_000))
    form = await forms.get("user")
    for field in Profile.DESCRIPTOR.fields:
        shown = "profile" if field.name == "name" else field.name
        assert getattr(form, shown) == getattr(FULL_PROFILE, field.name), f"EnrollmentForm.{shown}"


async def test_all_who_wait_share_one_question_until_it_is_stale() -> None:
    downstream, clock = Downstream(), ManualClock(NOW * 1_000_000)
    forms = source(downstream, clock)
    await asyncio.gather(*(forms.get("user") for _ in range(20)))
    assert downstream.asked == 1
    clock.advance(FRESH_US // 1_000_000)
    await asyncio.gather(*(forms.get("user") for _ in range(20)))
    assert downstream.asked == 2


async def test_a_client_that_knows_another_transport_key_makes_it_ask_anew_once_a_second() -> None:
    """The bundle of a deployment may have brought the client a key that this RM has not met yet."""
    downstream, clock = Downstream(), ManualClock(NOW * 1_000_000)
    forms = source(downstream, clock)
    await forms.get("user")
    for known in (b"", forms.keys.newest_id):
        clock.advance(1)
        forms.meet(known)
        await forms.get("user")
    assert downstream.asked == 1
    for _ in range(3):
        forms.meet(bytes(32))
        await forms.get("user")
    assert downstream.asked == 2
    clock.advance(1)
    forms.meet(bytes(32))
    await forms.get("user")
    assert downstream.asked == 3


async def test_an_unknown_profile_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownProfileError, match="These exist: user"):
        await source(Downstream(), ManualClock(NOW * 1_000_000)).get("other")


async def test_a_failure_is_not_remembered() -> None:
    downstream = Downstream()
    forms = source(downstream, ManualClock(NOW * 1_000_000))
    downstream.away = True
    with pytest.raises(UnavailableError):
        await forms.get("user")
    downstream.away = False
    await forms.get("user")


async def test_a_certificate_that_is_not_the_transport_keys_is_not_served() -> None:
    downstream = Downstream()
    downstream.path = "drm"
    with pytest.raises(KeyarkError) as caught:
        await source(downstream, ManualClock(NOW * 1_000_000)).get("user")
    assert caught.value.reason == "TRANSPORT_CERTIFICATE"


async def test_a_key_that_nothing_leads_to_from_the_known_one_is_not_offered() -> None:
    """P5: the DRM's address in other hands, with a certificate that the internal CA signed once."""
    downstream, clock = Downstream(), ManualClock(NOW * 1_000_000)
    forms = source(downstream, clock)
    await forms.get("user")
    downstream.number = 906
    forms.forget()
    with pytest.raises(KeyarkError) as caught:
        await forms.get("user")
    assert caught.value.reason == "TRANSPORT_KEY_UNPROVEN"


async def test_the_refusal_of_the_offered_key_makes_the_form_stale_and_that_of_another_does_not() -> None:
    downstream = Downstream()
    forms = source(downstream, ManualClock(NOW * 1_000_000))
    await forms.get("user")
    for other in ("", "00" * 32):
        forms.refused(other)
        await forms.get("user")
    assert downstream.asked == 1
    offered = sha256(encode_spki(private_key(KeyType.EC_P256, 905).public_key())).hexdigest()
    forms.refused(offered)
    await forms.get("user")
    assert downstream.asked == 2
