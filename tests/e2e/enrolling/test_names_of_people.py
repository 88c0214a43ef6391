"""P5: nobody is enrolled, and nothing asked for, in words of which a reader does not see all; real names work."""

from __future__ import annotations

import unicodedata

import pytest
from cryptography.x509.oid import NameOID

from keyark.client import KeyarkError
from keyark.client.access.sessions import open_session
from keyark.client.administration.lists import deactivate_key, list_keys
from keyark.rpc.calling.channels import call
from keyark.statements.ceremonies import CEREMONY_LABEL
from keyark.statements.enrollment import new_request_id
from keyark.v1.ceremony_pb2 import CeremonyStatement, CeremonyType
from keyark.v1.recovery_pb2 import KeyFilter, RequestCeremonyRequest
from tests.support.running.deployment import Deployment
from tests.support.stories.attacks import refusals_of
from tests.support.stories.enrolling import enrolling, holdings
from tests.support.stories.recovering import agent_keys, agents, raw_stub

NAMES = ("عبد الرحمن", "שָׁלוֹם כֹּהֵן", "श्‍री कुमार", "علی‌رضا", unicodedata.normalize("NFD", "Nguyễn Thị Minh"))


async def test_people_of_every_script_enroll_and_their_keys_are_found_by_name(deployment: Deployment) -> None:
    async with deployment.client() as client:
        for number, name in enumerate(NAMES):
            enrolled = await client.enroll(common_name=name, email=f"user{number}@example.org")
            (common_name,) = enrolled.encryption_certificate.subject.get_attributes_for_oid(
                NameOID.COMMON_NAME
            )
            assert common_name.value == unicodedata.normalize("NFC", name)
    async with open_session(deployment.home(), "drm", identity="agent/alice") as session:
        for number, name in enumerate(NAMES):
            found = [key.email async for key in list_keys(session, KeyFilter(owner=name))]
            assert found == [f"user{number}@example.org"]


async def test_names_of_which_not_all_is_seen_are_refused_and_logged(deployment: Deployment) -> None:
    names = ("Alice\u3164", "Al\u034fice", "Alice\ufe0f", "Ali\U000e0063ce", "\u2800Alice", "A\u200clice")
    async with enrolling(deployment.home()) as enroller:
        outcomes = await enroller.send(*(enroller.request(fields={"common_name": name}) for name in names))
    for outcome in outcomes:
        assert isinstance(outcome, KeyarkError)
        assert (outcome.reason, getattr(outcome, "field", "")) == ("INVALID_INPUT", "common_name")
    found = await holdings(deployment.home())
    assert (found.certificates, found.keys, found.rejections) == (0, 0, ["INVALID_INPUT"] * len(names))


async def test_reasons_of_which_not_all_is_seen_are_refused_and_logged(deployment: Deployment) -> None:
    reason = "Alice asked\u3164\u2800"
    async with agents(deployment, "alice") as (alice,):
        words = CeremonyStatement(
            version=1,
            trust_domain="example.org",
            type=CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY,
            ceremony_id=new_request_id(),
            requester="spiffe://example.org/agent/alice",
            reason=reason,
        ).SerializeToString(deterministic=True)
        signed = agent_keys(alice).signer.sign_bytes(CEREMONY_LABEL, words)
        for awaitable in (
            call(raw_stub(alice).RequestCeremony, RequestCeremonyRequest(request=signed), timeout=30),
            deactivate_key(alice.session, bytes(32), reason=reason),
        ):
            with pytest.raises(KeyarkError, match=r"U\+3164 HANGUL FILLER") as refused:
                await awaitable
            assert refused.value.reason == "INVALID_INPUT"
    told = await refusals_of(deployment.home(), "drm")
    assert told == [("spiffe://example.org/agent/alice", "INVALID_INPUT")] * 2
