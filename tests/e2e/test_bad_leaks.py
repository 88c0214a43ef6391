"""P10: nothing of a private key appears in logs, errors, entries or output, whatever goes wrong with it."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from keyark.client.access.sessions import open_session
from keyark.client.trust.receipts import list_entries
from keyark.errors import KeyarkError
from keyark.keys.key_types import KeyType
from tests.support.keys.crypto import rsa_numbers, rsa_pkcs8
from tests.support.keys.pki import private_key
from tests.support.running.deployment import Deployment
from tests.support.stories.attacks import refusals_of
from tests.support.stories.enrolling import enrolling, pkcs8

NUMBER = 310


def secrets_of(key: Any) -> Iterator[bytes]:
    """The parts of a private key that give it away, as bytes."""
    if hasattr(key, "private_bytes_raw"):
        yield key.private_bytes_raw()
        return
    numbers = key.private_numbers()
    for name in ("private_value", "d", "p", "q", "dmp1", "dmq1"):
        if hasattr(numbers, name):
            value = getattr(numbers, name)
            yield value.to_bytes((value.bit_length() + 7) // 8, "big")


def spellings(secret: bytes) -> Iterator[str]:
    """How a secret could stand in a text; base64 at each of its three alignments, without the unsure ends."""
    yield secret.hex()
    yield secret.hex().upper()
    yield str(int.from_bytes(secret, "big"))
    yield repr(secret)[2:-1]
    for offset in range(3):
        yield base64.b64encode(bytes(offset) + secret).decode()[4:-4]
        yield base64.urlsafe_b64encode(bytes(offset) + secret).decode()[4:-4]


async def everything_said(deployment: Deployment) -> list[str]:
    """All entries of all three logs, as text and as bytes."""
    said = []
    for role in ("rm", "cm", "drm"):
        async with open_session(deployment.home(), role, identity="auditor/auditor") as session:
            async for entry in list_entries(session):
                data = entry.SerializeToString()
                said += [str(entry), data.hex(), base64.b64encode(data).decode()]
    return said


async def test_nothing_of_a_private_key_is_said_anywhere(
    deployment: Deployment, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    keys = [
        private_key(t, NUMBER)
        for t in (KeyType.RSA_2048, KeyType.EC_P256, KeyType.X25519, KeyType.ML_KEM_768)
    ]
    wrong_numbers = rsa_numbers(NUMBER) | {"d": rsa_numbers(NUMBER)["d"] + 2}
    async with enrolling(deployment.home()) as enroller:
        requests = [enroller.request(encryption_key=keys[0], private_key=rsa_pkcs8(wrong_numbers))]
        for key in keys:
            requests.append(enroller.request(encryption_key=key, private_key=pkcs8(key) + b"\x00"))
            requests.append(enroller.request(private_key=pkcs8(key)))
            requests.append(enroller.request(encryption_key=key, envelope=pkcs8(key)))
            requests.append(enroller.request(encryption_key=key, fields={"common_name": pkcs8(key).hex()}))
        refused = [(await enroller.send(request))[0] for request in requests]
        good = [(await enroller.send(enroller.request(encryption_key=key)))[0] for key in keys]
    assert all(isinstance(outcome, KeyarkError) for outcome in refused)
    assert not any(isinstance(outcome, KeyarkError) for outcome in good)
    assert len(await refusals_of(deployment.home(), "rm")) == len(requests)
    texts = [f"{outcome!s} {getattr(outcome, 'metadata', '')}" for outcome in refused]
    texts += [str(outcome) for outcome in good]
    texts += [*await everything_said(deployment), caplog.text, *capfd.readouterr()]
    told = "\n".join(texts)
    for key in keys:
        for secret in secrets_of(key):
            for spelling in spellings(secret):
                assert spelling not in told
