"""P6: a client believes a receipt once its tree stands in the log that RM and CM both follow and that its home saw."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from keyark.client import EnrollmentClient, KeyarkError
from keyark.client.trust.log_memory import remembered
from keyark.files import make_private_folder
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import load_private_key
from keyark.transparency.checkpoint import Checkpoint, NoteSigner, parse_checkpoint
from keyark.transparency.cosignatures import Cosigner
from tests.client.test_hostile_rm import hostile_rm
from tests.support.running.deployment import Deployment
from tests.support.stories.recovering import lose_key

ALICE = {"common_name": "Alice Example", "email": "alice@example.org", "signing_key_type": KeyType.EC_P256}


def drm_note(folder: Path, size: int) -> bytes:
    """A tree of its own that the DRM signs."""
    key: Any = load_private_key(folder / "drm" / "transport-keys" / "1" / "key.pem")
    return NoteSigner.from_private_key("example.org/drm", key).sign(
        Checkpoint("example.org/drm", size, os.urandom(32))
    )


def cosigned(folder: Path, note: bytes, *roles: str) -> bytes:
    for role in roles:
        key: Any = load_private_key(folder / role / "log-key.pem")
        note = Cosigner(f"example.org/{role}", key).cosign(note, at=1_700_000_000)
    return note


async def test_a_session_asks_once_and_the_home_remembers_the_newest_tree(deployment: Deployment) -> None:
    home, asked = deployment.home(), Counter[str]()

    def count(method: str, request: Any, response: Any) -> Any:
        asked[method] += 1
        return response

    async with hostile_rm(deployment, count) as client:
        first = await client.enroll(**ALICE)
        seen = remembered(home)
        assert seen.size >= first.receipt.checkpoint.size > 0
        for number in range(2):
            await client.enroll(**ALICE | {"email": f"user{number}@example.org"})
    assert asked["GetArchiveHead"] == 1
    await lose_key(
        deployment, email="later@example.org"
    )  # another session, which the first one's tree leads on to
    assert remembered(home).size > seen.size


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("no cosignature of the CM", "CHECKPOINT_SIGNATURE"),
        ("no cosignature of the RM", "CHECKPOINT_SIGNATURE"),
        ("an older tree that both cosigned", "PRIVATE_LOG"),
        ("a larger tree that only the DRM and the RM signed", "CHECKPOINT_SIGNATURE"),
        ("a proof that is none", "PRIVATE_LOG"),
        ("no proof", "PRIVATE_LOG"),
        ("no link", "PRIVATE_LOG"),
        ("nothing", "CHECKPOINT_FORMAT"),
    ],
)
async def test_an_rm_that_cannot_show_what_the_cm_follows_is_not_believed(
    deployment: Deployment, lie: str, reason: str
) -> None:
    folder, home = deployment.folder, deployment.home()
    await lose_key(deployment)
    remembered_before = (folder / "checkpoints" / "drm.note").read_bytes()

    def alter(method: str, request: Any, response: Any) -> Any:
        if method != "GetArchiveHead":
            return response
        lines = response.checkpoint.splitlines(keepends=True)
        if lie.startswith("no cosignature of"):
            name = b"example.org/" + lie[-2:].lower().encode()
            response.checkpoint = b"".join(line for line in lines if name not in line)
        elif lie.startswith("an older tree"):
            response.checkpoint = cosigned(folder, drm_note(folder, 3), "rm", "cm")
        elif lie.startswith("a larger tree"):
            response.checkpoint = cosigned(folder, drm_note(folder, 300), "rm")
        elif lie == "a proof that is none":
            response.links[0].proof.append(os.urandom(32))
        elif lie == "no proof":
            del response.links[0].proof[:]
        elif lie == "no link":
            response.ClearField("links")
        else:
            response.checkpoint = b""
        return response

    async with hostile_rm(deployment, alter) as client:
        with pytest.raises(KeyarkError) as refused:
            await client.enroll(**ALICE | {"email": "mallory@example.org"})
    assert refused.value.reason == reason
    assert (folder / "checkpoints" / "drm.note").read_bytes() == remembered_before
    assert remembered(home).size > 0


async def test_an_older_head_that_both_cosigned_says_nothing_of_a_newer_receipt(
    deployment: Deployment,
) -> None:
    """A log may part from the one that the CM follows after that head; so its proof is not enough."""
    home = deployment.home()
    await lose_key(deployment)
    older = (home.folder / "checkpoints" / "drm.note").read_bytes()

    def replay(method: str, request: Any, response: Any) -> Any:
        if method == "GetArchiveHead":
            assert parse_checkpoint(response.checkpoint).size == request.tree_sizes[-1]
            response.checkpoint = older
            response.links[-1].CopyFrom(response.links[0])  # leads from the older head to the receipt's
            del response.links[0].proof[:]
        return response

    async with hostile_rm(deployment, replay) as client:
        with pytest.raises(KeyarkError) as refused:
            await client.enroll(**ALICE | {"email": "mallory@example.org"})
    assert refused.value.reason == "PRIVATE_LOG"


async def test_a_log_that_forgot_what_the_home_saw_is_not_believed(deployment: Deployment) -> None:
    """RM, CM and DRM agree on it; only this home has seen another one."""
    home = deployment.home()
    make_private_folder(home.folder / "checkpoints")
    note = drm_note(home.folder, 4)
    (home.folder / "checkpoints" / "drm.note").write_bytes(note)
    async with EnrollmentClient.open(home) as client:
        with pytest.raises(KeyarkError) as refused:
            await client.enroll(**ALICE)
    assert refused.value.reason == "PRIVATE_LOG"
    assert remembered(home) == parse_checkpoint(note)
    (home.folder / "checkpoints" / "drm.note").write_bytes(drm_note(home.folder, 4000))
    async with EnrollmentClient.open(home) as client:
        with pytest.raises(KeyarkError) as refused:
            await client.enroll(**ALICE)
    assert refused.value.reason == "PRIVATE_LOG"
