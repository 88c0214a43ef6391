"""Transport keys rotate and are retired while enrollments go on; nothing is lost, no old receipt, and no refusal."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from drm_service.config import DrmConfig
from drm_service.transport.loss import replace_lost_key
from keyark.client import EnrollmentClient, KeyDelivery, PreparedEnrollment
from keyark.client.access.sessions import open_session
from keyark.client.enrollment.folder import EnrollmentFolder
from keyark.client.enrollment.single import EnrollmentOrder, enroll_into, prepare_in
from keyark.client.trust.receipts import archive_verifier, verify_receipt_file
from keyark.client.trust.witnesses import Witnesses
from keyark.config import load_config
from keyark.custody.envelopes import UnknownTransportKeyError
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.errors import KeyarkError
from keyark.errors.services import WorkerStartError
from keyark.identity.certificates import request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate_signing
from keyark.keys.private_keys import save_private_key
from keyark.keys.spki import encode_spki
from keyark.rpc.calling.channels import call
from keyark.service.program.initialization import save_request
from keyark.store import StoreLockedError
from keyark.transparency.checkpoint import CheckpointSignatureError, NoteVerifier
from keyark.v1 import audit_pb2
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.common_pb2 import TransportCertificate
from keyark.v1.recovery_pb2 import CeremonyState
from keyark.v1.registration_pb2 import ENROLLMENT_STATE_ISSUED, Enrollment
from keyark.x509.certificates import Validity, encode_certificate, load_certificates
from tests.client.test_hostile_rm import hostile_rm
from tests.support.running.deployment import Deployment, running
from tests.support.running.processes import keyark
from tests.support.stories.attacks import refusals_of
from tests.support.stories.enrolling import enrolling, holdings
from tests.support.stories.recovering import REASON, agents, approve, identity_file, lose_key
from tests.support.stories.rotation import (
    RETIRED,
    ROTATED,
    ask,
    certificate_file,
    certify,
    change_row,
    key_file,
    leaves,
    make,
    rotate,
    sign,
    states,
)

ALICE = {"common_name": "Alice Example", "email": "alice@example.org", "signing_key_type": KeyType.EC_P256}
ORDER = EnrollmentOrder(**ALICE)


def verifier(folder: Path, generation: int) -> NoteVerifier:
    """Verifies the DRM's checkpoints under one transport key only."""
    certificate = load_certificates(certificate_file(folder, generation))[0]
    return NoteVerifier.from_public_key("example.org/drm", encode_spki(certificate.public_key()))


async def newest_note(deployment: Deployment) -> bytes:
    async with open_session(deployment.home(), "drm", identity="auditor/auditor") as session:
        stub = AuditServiceStub(session.channel)
        response = await call(stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(), timeout=30)
    return response.checkpoint


async def archived_keys(deployment: Deployment) -> int:
    return (await holdings(deployment.home())).keys


# What goes on


@pytest.mark.parametrize("key_type", ["ec-p256", "rsa-3072"])
async def test_enrollments_go_on_over_a_rotation_and_the_retirement_of_the_old_key(
    deployment: Deployment, key_type: str
) -> None:
    """The RM has cached the old form: it meets the new key by its first receipt, and gives the CM nothing to refuse."""
    async with deployment.client() as client:
        first = await client.enroll(**ALICE)
        await rotate(deployment, key_type)
        second = await client.enroll(**ALICE)
        await ask(deployment, "retire", "1")
        third = await client.enroll(**ALICE)
        assert (await client.form()).transport_certificate.certificate != first.transport_certificate
    assert second.transport_certificate != first.transport_certificate
    assert third.transport_certificate == second.transport_certificate
    assert await archived_keys(deployment) == 3
    assert await states(deployment) == ["OFFERED", "RETIRED"]
    assert [await refusals_of(deployment.home(), role) for role in ("rm", "cm", "drm")] == [[], [], []]


@pytest.mark.parametrize("delivery", KeyDelivery)
async def test_an_enrollment_under_a_form_whose_key_was_retired_is_wrapped_again_and_not_lost(
    deployment: Deployment, delivery: KeyDelivery
) -> None:
    """The RM still offers the key that the DRM refuses, until the first refusal tells it."""
    async with deployment.client() as client:
        prepared = await client.prepare(**ALICE)
        await rotate(deployment)
        await ask(deployment, "retire", "1")
        enrolled = await client.submit(prepared, delivery=delivery)
        again = await client.submit(prepared)
    assert enrolled.transport_certificate != prepared.transport_certificate
    assert again.encryption_certificate == enrolled.encryption_certificate
    assert await archived_keys(deployment) == 1


async def test_a_rotation_between_the_receipt_and_the_witnesses_heads_costs_no_enrollment(
    deployment: Deployment,
) -> None:
    """The head that RM and CM cosign is signed with the next key then, which the client learns from another form."""

    class Overtaken(EnrollmentClient):
        async def send(
            self, prepared: Sequence[PreparedEnrollment], transports: dict[bytes, TransportCertificate]
        ) -> list[Enrollment | KeyarkError]:
            answers = await super().send(prepared, transports)
            await rotate(deployment)
            async with deployment.client() as other:
                await other.enroll(**ALICE)  # now the RM follows a head of the next key
            return answers

    async with Overtaken.open(deployment.home()) as client:
        enrolled = await client.enroll(**ALICE)
    assert enrolled.receipt is not None
    assert await archived_keys(deployment) == 2


async def test_witnesses_that_nobody_told_of_the_rotation_follow_it_when_an_agent_shows_a_newer_head(
    deployment: Deployment,
) -> None:
    """Nothing was enrolled since: RM and CM know the first key only, and the agent's client shows them the next one."""
    async with deployment.client() as client:
        await client.enroll(**ALICE)
    await rotate(deployment)
    home = deployment.home()
    async with AsyncExitStack() as stack:
        archive = await stack.enter_async_context(open_session(home, "drm", identity="auditor/auditor"))
        followers = [
            await stack.enter_async_context(open_session(home, role, identity="agent/alice"))
            for role in ("rm", "cm")
        ]
        request = audit_pb2.GetInclusionProofRequest(index=0)
        proof = await call(AuditServiceStub(archive.channel).GetInclusionProof, request, timeout=30)
        newest = archive_verifier(home).verify_entry(proof.proof)
        await Witnesses(archive=archive, followers=followers).confirm([newest])
        await Witnesses(archive=archive, followers=followers).confirm([newest])


async def test_of_a_batch_only_what_was_refused_is_sent_again(deployment: Deployment) -> None:
    async with deployment.client() as client:
        done = await client.prepare(**ALICE)
        first = await client.submit(done)
        waiting = [await client.prepare(**ALICE) for _ in range(3)]
        await rotate(deployment)
        await ask(deployment, "retire", "1")
        outcomes = await client.submit_many([waiting[0], done, *waiting[1:]])
    assert [outcome.statement for outcome in outcomes] == [
        item.statement for item in (waiting[0], done, *waiting[1:])
    ]
    assert outcomes[1].encryption_certificate == first.encryption_certificate
    assert await archived_keys(deployment) == 4


async def test_enrollments_in_flight_over_rotations_and_retirements_all_have_their_outcome(
    deployment: Deployment,
) -> None:
    async with deployment.client() as client:
        prepared = [await client.prepare(**ALICE) for _ in range(24)]
        running_ = [asyncio.create_task(client.submit(item)) for item in prepared[:12]]
        for generation in (1, 2):
            await rotate(deployment)
            await ask(deployment, "retire", str(generation))
            running_ += [
                asyncio.create_task(client.submit(item)) for item in prepared[6 * generation + 6 :][:6]
            ]
        outcomes = await asyncio.gather(*running_)
    assert len({outcome.receipt.index for outcome in outcomes}) == 24
    assert await archived_keys(deployment) == 24


async def test_a_certificate_that_was_renewed_for_the_same_key_is_offered_after_a_reload(
    deployment: Deployment,
) -> None:
    path = certificate_file(deployment.folder, 1)
    sign(deployment.folder, path.with_name("transport.csr"), path)
    await deployment.services["drm"].reload()
    await deployment.services["rm"].reload()
    async with deployment.client() as client:
        offered = (await client.form()).transport_certificate.certificate
        assert offered == encode_certificate(load_certificates(path)[0])
        await client.enroll(**ALICE)
    assert await states(deployment) == ["OFFERED"]


@pytest.mark.parametrize("generation", [1, 2])
async def test_a_certificate_in_force_that_was_replaced_by_another_keys_fails_the_reload_only(
    deployment: Deployment, generation: int
) -> None:
    await rotate(deployment)
    other = certificate_file(deployment.folder, 3 - generation).read_bytes()
    certificate_file(deployment.folder, generation).write_bytes(other)
    with pytest.raises(KeyarkError) as caught:
        await deployment.services["drm"].reload()
    assert caught.value.reason == "TRANSPORT_KEY_UNKNOWN"
    async with deployment.client() as client:
        await client.enroll(**ALICE)


async def test_the_first_checkpoint_after_the_switch_carries_both_signatures(deployment: Deployment) -> None:
    before = await newest_note(deployment)
    await rotate(deployment)
    both = await newest_note(deployment)
    heads = [verifier(deployment.folder, generation).verify(both) for generation in (1, 2)]
    assert heads[0] == heads[1]
    assert both.count("— example.org/drm ".encode()) == 2
    async with deployment.client() as client:
        await client.enroll(**ALICE)
    later = await newest_note(deployment)
    verifier(deployment.folder, 2).verify(later)
    with pytest.raises(CheckpointSignatureError):
        verifier(deployment.folder, 1).verify(later)
    with pytest.raises(CheckpointSignatureError):
        verifier(deployment.folder, 2).verify(before)


async def test_rotation_and_retirement_are_leaves_that_name_the_keys(deployment: Deployment) -> None:
    await rotate(deployment)
    await ask(deployment, "retire", "1")
    newest, oldest = (key["key_id"] for key in await ask(deployment, "list"))
    assert await leaves(deployment) == [(ROTATED, oldest), (ROTATED, newest), (RETIRED, oldest)]


async def test_envelopes_to_an_older_key_are_taken_until_it_is_retired(deployment: Deployment) -> None:
    async with enrolling(deployment.home()) as enroller:  # keeps to the form that it has
        await rotate(deployment)
        outcome = (await enroller.send(enroller.request()))[0]
        assert outcome.state == ENROLLMENT_STATE_ISSUED
        await ask(deployment, "retire", "1")
        refused = (await enroller.send(enroller.request()))[0]
    assert isinstance(refused, UnknownTransportKeyError)
    assert "form again" in refused.message
    assert await archived_keys(deployment) == 1
    assert "UNKNOWN_TRANSPORT_KEY" in (await holdings(deployment.home(), refused_by="drm")).rejections


async def test_a_client_that_restarts_after_the_rotation_verifies_its_older_receipt(
    deployment: Deployment, tmp_path: Path
) -> None:
    """The RM recorded an outcome under the old key; the client had died before the answer came."""
    folder = EnrollmentFolder(path=tmp_path / "alice")
    async with deployment.client() as client:
        lost = await client.submit(await prepare_in(client, folder, ORDER))
    await rotate(deployment)
    await ask(deployment, "retire", "1")
    await deployment.services["rm"].reload()
    async with deployment.client() as client:
        await enroll_into(client, folder, ORDER)
    receipt = verify_receipt_file(folder.path / "receipt.tlog-proof", folder.path / "transport.pem")
    assert receipt.index == lost.receipt.index


async def test_a_client_that_kept_no_certificate_verifies_its_receipt_under_the_key_that_its_home_knows(
    deployment: Deployment,
) -> None:
    async with deployment.client() as client:
        prepared = await client.prepare(**ALICE)
        lost = await client.submit(prepared)
    await rotate(deployment)
    await deployment.services["rm"].reload()
    async with deployment.client() as client:
        found = await client.outcome(dataclasses.replace(prepared, transport_certificate=b""))
    assert found.receipt.index == lost.receipt.index


async def test_an_rm_that_offers_a_retired_key_for_ever_gets_no_key_and_the_client_a_typed_error(
    deployment: Deployment,
) -> None:
    async with deployment.client() as client:
        old = await client.form()
    await rotate(deployment)
    await ask(deployment, "retire", "1")

    def stale(method: str, request: object, response):
        if method == "GetEnrollmentForm":
            response.form.transport_certificate.CopyFrom(old.transport_certificate)
            del response.form.transport_key_changes[:]
        return response

    async with hostile_rm(deployment, stale) as client:
        with pytest.raises(UnknownTransportKeyError):  # the DRM's word: the client has seen nothing newer
            await client.enroll(**ALICE)
    assert await archived_keys(deployment) == 0


async def test_a_made_up_key_id_is_refused(deployment: Deployment) -> None:
    async with enrolling(deployment.home()) as enroller:
        request = enroller.request()
        known = enroller.transport_key.key_id
        request.wrapped_private_key = request.wrapped_private_key.replace(known, bytes(32))
        refused = (await enroller.send(request))[0]
        assert isinstance(refused, UnknownTransportKeyError)


# What is refused


async def test_a_key_without_its_certificate_waits_and_changes_nothing(deployment: Deployment) -> None:
    first = await ask(deployment, "new", "ec-p256")
    again = await ask(deployment, "new", "ec-p256")
    assert first == again
    await deployment.services["drm"].reload()
    assert await states(deployment) == ["OFFERED"]
    sign(deployment.folder, first["request"], first["certificate"])
    await deployment.services["drm"].reload()
    assert await states(deployment) == ["OFFERED", "TAKEN"]


async def test_a_key_of_another_type_waits_and_is_not_replaced(deployment: Deployment) -> None:
    await ask(deployment, "new", "ec-p256")
    with pytest.raises(KeyarkError) as caught:
        await ask(deployment, "new", "rsa-3072")
    assert caught.value.reason == "TRANSPORT_KEY_FILE"


def of_another_key(folder: Path, certificate: Path) -> None:
    certificate.write_bytes(certificate_file(folder, 1).read_bytes())


def of_the_drm_itself(folder: Path, certificate: Path) -> None:
    certificate.write_bytes((folder / "drm" / "identity.pem").read_bytes())


def of_another_authority(folder: Path, certificate: Path) -> None:
    other = DeploymentAuthority.create(
        folder / "other", trust_domain="example.org", root_key_type=KeyType.EC_P256, key_password=None
    )
    other.sign_identity(
        certificate.with_name("transport.csr"), SpiffeId("example.org", "drm/transport"), certificate
    )


def not_a_certificate(folder: Path, certificate: Path) -> None:
    certificate.write_text("nothing")


def key_is_gone(folder: Path, certificate: Path) -> None:
    sign(folder, certificate.with_name("transport.csr"), certificate)
    certificate.with_name("key.pem").unlink()


def key_is_open_to_others(folder: Path, certificate: Path) -> None:
    sign(folder, certificate.with_name("transport.csr"), certificate)
    certificate.with_name("key.pem").chmod(0o644)


@pytest.mark.parametrize(
    ("install", "reason"),
    [
        (of_another_key, "TRANSPORT_KEY_FILE"),
        (of_the_drm_itself, "TRANSPORT_CERTIFICATE"),
        (of_another_authority, "CERTIFICATE_CHAIN"),
        (not_a_certificate, "CERTIFICATE_FORMAT"),
        (key_is_gone, "UNREADABLE_FILE"),
        (key_is_open_to_others, "LAX_PERMISSIONS"),
    ],
)
async def test_a_key_that_is_not_fit_does_not_come_into_force(
    deployment: Deployment, install, reason: str
) -> None:
    new = await ask(deployment, "new", "ec-p256")
    install(deployment.folder, Path(new["certificate"]))
    with pytest.raises(KeyarkError) as caught:
        await deployment.services["drm"].reload()
    assert caught.value.reason == reason
    assert await states(deployment) == ["OFFERED"]
    assert [kind for kind, _ in await leaves(deployment)] == [ROTATED]
    async with deployment.client() as client:
        await client.enroll(**ALICE)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["retire", "2"], "TRANSPORT_KEY_STATE"),
        (["retire", "3"], "NOT_FOUND"),
        (["retire", "0"], "NOT_FOUND"),
        (["retire", "-1"], "INVALID_INPUT"),
        (["retire", "../1"], "INVALID_INPUT"),
        (["retire", ""], "INVALID_INPUT"),
        (["retire"], "UNKNOWN_COMMAND"),
        (["new", "ed25519"], "INVALID_INPUT"),
        (["new", "rsa-2048"], "INVALID_INPUT"),
        (["show"], "UNKNOWN_COMMAND"),
        ([], "UNKNOWN_COMMAND"),
    ],
)
async def test_commands_that_do_not_fit_are_refused(
    deployment: Deployment, arguments: list[str], reason: str
) -> None:
    await rotate(deployment)
    with pytest.raises(KeyarkError) as caught:
        await ask(deployment, *arguments)
    assert caught.value.reason == reason
    assert await states(deployment) == ["OFFERED", "TAKEN"]
    assert key_file(deployment.folder, 1).exists()


async def test_a_key_that_workers_cannot_drop_is_not_retired(deployment: Deployment) -> None:
    async with enrolling(deployment.home()) as enroller:  # keeps to the form that it has
        await rotate(deployment)
        key_file(deployment.folder, 2).chmod(0o644)  # no worker starts with it
        with pytest.raises(WorkerStartError):
            await ask(deployment, "retire", "1")
        key_file(deployment.folder, 2).chmod(0o600)
        assert await states(deployment) == ["OFFERED", "TAKEN"]
        assert [kind for kind, _ in await leaves(deployment)] == [ROTATED, ROTATED]
        await deployment.services["drm"].reload()
        outcome = (await enroller.send(enroller.request()))[0]
    assert outcome.state == ENROLLMENT_STATE_ISSUED


async def test_retiring_deletes_the_private_key_and_keeps_the_certificate(deployment: Deployment) -> None:
    await rotate(deployment)
    await ask(deployment, "retire", "1")
    assert not key_file(deployment.folder, 1).exists()
    assert certificate_file(deployment.folder, 1).exists()
    await ask(deployment, "retire", "1")
    assert [kind for kind, _ in await leaves(deployment)] == [ROTATED, ROTATED, RETIRED]


async def test_a_key_that_was_in_force_before_does_not_come_back(deployment: Deployment) -> None:
    old_key = key_file(deployment.folder, 1).read_bytes()
    await rotate(deployment)
    await ask(deployment, "retire", "1")
    new = await make(deployment)
    Path(new["certificate"]).write_bytes(certificate_file(deployment.folder, 1).read_bytes())
    key_file(deployment.folder, 3).write_bytes(old_key)
    with pytest.raises(KeyarkError) as caught:
        await deployment.services["drm"].reload()
    assert caught.value.reason == "TRANSPORT_KEY_STATE"
    assert await states(deployment) == ["OFFERED", "RETIRED"]


# Crashes: every state that a kill can leave behind


@asynccontextmanager
async def rotated(folder: Path) -> AsyncIterator[tuple[Deployment, PreparedEnrollment]]:
    """A deployment after a rotation, with an enrollment under the first key."""
    async with running(folder) as deployment:
        async with deployment.client() as client:
            prepared = await client.prepare(**ALICE)
            await client.submit(prepared)
        await rotate(deployment)
        yield deployment, prepared


async def goes_on(deployment: Deployment, prepared: PreparedEnrollment) -> None:
    """A new enrollment is issued, the old one's outcome is there, and the keys agree with the log."""
    async with deployment.client() as client:
        await client.enroll(**ALICE)
        assert (await client.outcome(prepared)).receipt is not None


async def test_a_crash_before_the_commit_leaves_the_key_waiting(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment:
        await make(deployment)
    async with running(deployment_folder) as deployment:
        assert await states(deployment) == ["OFFERED"]
        await deployment.services["drm"].reload()
        assert await states(deployment) == ["OFFERED", "TAKEN"]


async def test_a_crash_after_the_commit_has_both_keys_sign_at_the_next_start(deployment_folder: Path) -> None:
    async with rotated(deployment_folder) as (_, prepared):
        pass
    kept = (await change_row(deployment_folder, 2, handover_checkpoint=b"")).handover_checkpoint
    for generation in (1, 2):
        verifier(deployment_folder, generation).verify(kept)
    async with running(deployment_folder) as deployment:
        both = await newest_note(deployment)
        for generation in (1, 2):
            verifier(deployment_folder, generation).verify(both)
        await goes_on(deployment, prepared)
    made_up_for = (await change_row(deployment_folder, 2)).handover_checkpoint
    assert made_up_for.count("— example.org/drm ".encode()) == 2
    async with running(deployment_folder) as deployment:
        assert (await newest_note(deployment)).count("— example.org/drm ".encode()) == 1


async def test_a_crash_before_the_private_key_is_deleted_deletes_it_at_the_next_start(
    deployment_folder: Path,
) -> None:
    old_key = key_file(deployment_folder, 1).read_bytes()
    async with rotated(deployment_folder) as (deployment, prepared):
        await ask(deployment, "retire", "1")
    key_file(deployment_folder, 1).write_bytes(old_key)
    key_file(deployment_folder, 1).chmod(0o600)
    async with running(deployment_folder) as deployment:
        assert not key_file(deployment_folder, 1).exists()
        await goes_on(deployment, prepared)


async def test_old_receipts_and_new_ones_verify_after_a_restart_of_everything(
    deployment_folder: Path,
) -> None:
    async with rotated(deployment_folder) as (_, prepared):
        pass
    async with running(deployment_folder) as deployment:
        await goes_on(deployment, prepared)
        assert await states(deployment) == ["OFFERED", "TAKEN"]


# Fail closed: a disk that says something else than the log


async def replaced(folder: Path) -> None:
    """Another key with a certificate of the right authority."""
    key = generate_signing(KeyType.EC_P256)
    for name in ("key.pem", "transport.csr"):
        key_file(folder, 2).with_name(name).unlink()
    save_private_key(key_file(folder, 2), key)
    request = key_file(folder, 2).with_name("transport.csr")
    save_request(request, request_identity(key, SpiffeId("example.org", "drm/transport")))
    sign(folder, request, certificate_file(folder, 2))


async def other_private_key(folder: Path) -> None:
    key_file(folder, 2).write_bytes(key_file(folder, 1).read_bytes())


async def lost_private_key(folder: Path) -> None:
    key_file(folder, 1).unlink()


async def lost_certificate(folder: Path) -> None:
    certificate_file(folder, 1).unlink()


async def certificates_exchanged(folder: Path) -> None:
    certificate_file(folder, 1).write_bytes(certificate_file(folder, 2).read_bytes())


async def row_without_its_leaf(folder: Path) -> None:
    await change_row(folder, 2, rotated_index=0)


async def row_beyond_the_log(folder: Path) -> None:
    await change_row(folder, 2, rotated_index=1 << 40)


async def retired_without_its_leaf(folder: Path) -> None:
    await change_row(folder, 1, retired=True)


async def all_retired(folder: Path) -> None:
    await change_row(folder, 2, retired=True)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (replaced, "TRANSPORT_KEY_UNKNOWN"),
        (other_private_key, "TRANSPORT_KEY_FILE"),
        (lost_private_key, "UNREADABLE_FILE"),
        (lost_certificate, "UNREADABLE_FILE"),
        (certificates_exchanged, "TRANSPORT_KEY_UNKNOWN"),
        (row_without_its_leaf, "TRANSPORT_KEY_UNKNOWN"),
        (row_beyond_the_log, "TRANSPORT_KEY_UNKNOWN"),
        (retired_without_its_leaf, "TRANSPORT_KEY_UNKNOWN"),
        (all_retired, "TRANSPORT_KEY_UNKNOWN"),
    ],
)
async def test_a_drm_whose_disk_holds_another_key_than_its_log_says_does_not_start(
    deployment_folder: Path, harm, reason: str
) -> None:
    async with rotated(deployment_folder):
        pass
    await harm(deployment_folder)
    with pytest.raises(KeyarkError) as caught:
        async with running(deployment_folder):
            pass
    assert caught.value.reason == reason


# Lost keys


async def replace_lost(folder: Path) -> dict[str, object]:
    config = load_config(folder / "drm" / "drm.toml", DrmConfig)
    return await asyncio.to_thread(replace_lost_key, config, KeyType.EC_P256)


async def test_who_lost_the_newest_key_puts_another_in_its_place(deployment_folder: Path) -> None:
    async with rotated(deployment_folder) as (_, prepared):
        pass
    key_file(deployment_folder, 2).unlink()
    new = await replace_lost(deployment_folder)
    assert (new["generation"], new["state"]) == (3, "WAITING")
    assert await replace_lost(deployment_folder) == new
    with pytest.raises(KeyarkError):
        async with running(deployment_folder):
            pass
    sign(deployment_folder, new["request"], new["certificate"])
    assert (await replace_lost(deployment_folder))["state"] == "OFFERED"
    async with running(deployment_folder) as deployment:
        assert await states(deployment) == ["OFFERED", "RETIRED", "TAKEN"]
        assert [kind for kind, _ in await leaves(deployment)] == [ROTATED, ROTATED, ROTATED, RETIRED]
        await goes_on(deployment, prepared)
        await rotate(deployment)
        await goes_on(deployment, prepared)


async def test_a_lost_older_key_is_retired_and_the_newest_goes_on(deployment_folder: Path) -> None:
    async with rotated(deployment_folder) as (_, prepared):
        pass
    key_file(deployment_folder, 1).unlink()
    assert (await replace_lost(deployment_folder))["generation"] == 2
    async with running(deployment_folder) as deployment:
        assert await states(deployment) == ["OFFERED", "RETIRED"]
        await goes_on(deployment, prepared)


async def test_nothing_is_replaced_where_nothing_is_lost_or_the_drm_runs(deployment_folder: Path) -> None:
    async with rotated(deployment_folder) as (deployment, _):
        with pytest.raises(StoreLockedError):
            await replace_lost(deployment_folder)
        assert await states(deployment) == ["OFFERED", "TAKEN"]
    with pytest.raises(KeyarkError) as caught:
        await replace_lost(deployment_folder)
    assert caught.value.reason == "TRANSPORT_KEY_STATE"


async def test_a_lost_key_is_not_replaced_under_a_certificate_that_is_not_good(
    deployment_folder: Path,
) -> None:
    async with rotated(deployment_folder):
        pass
    key_file(deployment_folder, 2).unlink()
    new = await replace_lost(deployment_folder)
    of_another_key(deployment_folder, Path(str(new["certificate"])))
    with pytest.raises(KeyarkError) as caught:
        await replace_lost(deployment_folder)
    assert caught.value.reason == "TRANSPORT_KEY_FILE"
    assert not (await change_row(deployment_folder, 2)).retired


async def test_a_lost_key_is_not_replaced_under_a_certificate_that_no_reader_would_believe(
    deployment_folder: Path,
) -> None:
    """It begins in the second in which the lost one's does, so nothing says which of the two keys is the newer."""
    lost = load_certificates(certificate_file(deployment_folder, 1))[0]
    key_file(deployment_folder, 1).unlink()
    new = await replace_lost(deployment_folder)
    certify(deployment_folder, ends_in=86_400, generation=2, not_before=Validity.of(lost).not_before)
    with pytest.raises(KeyarkError) as caught:
        await replace_lost(deployment_folder)
    assert caught.value.reason == "TRANSPORT_KEY_STATE"
    sign(deployment_folder, new["request"], new["certificate"])
    assert (await replace_lost(deployment_folder))["state"] == "OFFERED"


async def test_a_generation_that_was_copied_to_the_disk_is_not_taken_at_the_start(
    deployment_folder: Path,
) -> None:
    async with running(deployment_folder) as deployment:
        await make(deployment)
        async with deployment.client() as client:
            old_form = (await client.form()).transport_certificate
    async with running(deployment_folder) as deployment, deployment.client() as client:
        assert (await client.form()).transport_certificate == old_form


async def test_homes_that_never_enroll_follow_a_rotation_by_its_handover(deployment: Deployment) -> None:
    """Agents and auditors with the transport.pem of the beginning, and nothing that they learned since."""
    lost = await lose_key(deployment)
    pinned = (deployment.folder / "transport.pem").read_bytes()
    for _ in range(2):
        await rotate(deployment)
    assert (deployment.folder / "transport.pem").read_bytes() == pinned
    (deployment.folder / "transport-keys").unlink(missing_ok=True)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob, carol)
        (recovered,) = await alice.collect(asked.ceremony_id)
        assert recovered.private_key == lost.private_key
    (deployment.folder / "transport-keys").unlink(missing_ok=True)
    audited = await asyncio.to_thread(keyark, "audit", "verify", "--home", deployment.folder)
    assert audited.returncode == 0


async def test_a_ceremony_that_cannot_be_verified_where_it_was_asked_for_is_canceled(
    deployment: Deployment,
) -> None:
    """The home pins a key that no handover leads from; the agent is told so, and that nothing proves the end."""
    lost = await lose_key(deployment)
    key, folder = generate_signing(KeyType.EC_P256), deployment.folder
    save_request(folder / "stranger.csr", request_identity(key, SpiffeId("example.org", "drm/transport")))
    (folder / "transport-keys").unlink(missing_ok=True)
    sign(folder, folder / "stranger.csr", folder / "transport.pem")
    async with agents(deployment, "alice") as (alice,):
        with pytest.raises(KeyarkError, match="was canceled, but does not prove") as refused:
            await alice.request_keys([lost.key_id], reason=REASON)
        states = [ceremony.state async for ceremony in alice.ceremonies()]
    assert refused.value.reason == "CHECKPOINT_SIGNATURE"
    assert states == [CeremonyState.CEREMONY_STATE_CANCELED]
    assert not list(identity_file(folder, "alice", "recoveries").iterdir())
