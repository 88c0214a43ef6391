"""Guards the folder of an enrollment: one run at a time, and "issued" means that these very keys lie in it."""

import asyncio
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from keyark.client.access.passwords import PasswordList
from keyark.client.enrollment.batch import PASSWORDS, BatchEnrollment
from keyark.client.enrollment.folder import EnrollmentFolder, KeyFormat, OtherRequestError
from keyark.client.enrollment.single import EnrollmentOrder, enroll_into
from keyark.errors import KeyarkError, UnavailableError
from keyark.folders import FolderInUseError, working_in
from keyark.keys.key_types import KeyType, generate
from keyark.keys.password_files import read_password
from keyark.keys.private_keys import save_private_key
from keyark.statements.pairs import CertificateMismatchError
from tests.support.running.deployment import Deployment

ALICE = EnrollmentOrder(common_name="Alice Example", email="alice@example.org")
BOB = EnrollmentOrder(common_name="Bob Example", email="bob@example.org")


async def no_pause(_: float) -> None:
    """Goes on at once."""


class Interrupted:
    """A client whose first calls fail as if the RM restarted; the others are a real client's."""

    def __init__(self, client, failures: int) -> None:
        self._client, self.failures = client, failures

    def __getattr__(self, name: str):
        return getattr(self._client, name)

    async def submit_many(self, waiting):
        outcomes = await self._client.submit_many(waiting)
        if self.failures:
            self.failures -= 1
            raise UnavailableError("The RM is away.")
        return outcomes


async def test_a_second_run_in_the_same_folder_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with deployment.client() as client:
        with working_in(out), pytest.raises(FolderInUseError, match="Another keyark command"):
            await enroll_into(client, EnrollmentFolder(path=out), ALICE)
        assert (await enroll_into(client, EnrollmentFolder(path=out), ALICE)).email == ALICE.email


async def test_a_second_batch_below_the_same_folder_is_refused(
    deployment: Deployment, tmp_path: Path
) -> None:
    async with deployment.client() as client:
        batch = BatchEnrollment(client=client, out=tmp_path / "out")
        with working_in(tmp_path / "out"), pytest.raises(FolderInUseError):
            await batch.run([ALICE])
        with working_in(tmp_path / "out" / ALICE.email):
            (result,) = await batch.run([ALICE])
    assert isinstance(result.error, FolderInUseError)


async def test_two_runs_at_once_issue_once_and_the_keys_are_the_certificates(
    deployment: Deployment, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    async with deployment.client() as client:
        runs = [enroll_into(client, EnrollmentFolder(path=out), ALICE) for _ in range(5)]
        results = await asyncio.gather(*runs, return_exceptions=True)
    assert sum(isinstance(result, FolderInUseError) for result in results) == 4
    EnrollmentFolder(path=out).check_kept_keys()


async def test_a_refused_run_leaves_no_folder(deployment: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with deployment.client() as client:
        with pytest.raises(KeyarkError):
            await enroll_into(
                client,
                EnrollmentFolder(path=out, key_format=KeyFormat.P12),
                EnrollmentOrder(common_name="Alice", email="alice@example.org", profile="nonsense"),
            )
    assert not out.exists()


async def test_keys_that_a_statement_names_are_never_overwritten(
    deployment: Deployment, tmp_path: Path
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "out")
    async with deployment.client() as client:
        folder.save(await client.prepare(common_name="Alice Example", email="alice@example.org"))
        before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
        with pytest.raises(OtherRequestError):
            folder.save(await client.prepare(common_name="Alice Example", email="alice@example.org"))
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


@pytest.mark.parametrize("role", ["signing", "encryption"])
async def test_another_key_on_disk_is_not_called_issued(
    deployment: Deployment, tmp_path: Path, role: str
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "out")
    async with deployment.client() as client:
        prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
        folder.save(prepared)
        enrolled = await client.submit(prepared)
        mine = folder.path / f"{role}-key.pem"
        mine.rename(folder.path / "moved.pem")
        save_private_key(mine, generate(KeyType.EC_P256))
        with pytest.raises(CertificateMismatchError, match="does not belong"):
            folder.finish(prepared, enrolled)
        assert not folder.is_finished()
        os.replace(folder.path / "moved.pem", mine)
        await enroll_into(client, folder, ALICE)
        mine.unlink()
        save_private_key(mine, generate(KeyType.EC_P256))
        with pytest.raises(CertificateMismatchError, match="does not belong"):
            await enroll_into(client, folder, ALICE)


async def test_pkcs12_without_a_password_gets_one_that_lies_beside_it(
    deployment: Deployment, tmp_path: Path
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "out", key_format=KeyFormat.P12)
    async with deployment.client() as client:
        await enroll_into(client, folder, ALICE)
        await enroll_into(client, folder, ALICE)
    password = read_password(folder.path / "password.txt")
    kept = pkcs12.load_pkcs12((folder.path / "keys.p12").read_bytes(), password)
    assert [kept.cert.certificate, *(c.certificate for c in kept.additional_certs)][:2]
    names = {certificate.friendly_name for certificate in (kept.cert, *kept.additional_certs)} - {None}
    assert len(names) == 2
    assert not (folder.path / "signing-key.pem").exists()


async def test_many_users_have_a_password_each(deployment: Deployment, tmp_path: Path) -> None:
    async with deployment.client() as client:
        batch = BatchEnrollment(client=client, out=tmp_path / "out", key_format=KeyFormat.P12)
        results = await batch.run([ALICE, BOB])
        assert await batch.run([ALICE, BOB]) == results
    passwords = PasswordList(tmp_path / "out" / PASSWORDS).of([ALICE.email, BOB.email])
    assert len(set(passwords.values())) == 2
    for result in results:
        assert pkcs12.load_pkcs12((result.folder / "keys.p12").read_bytes(), passwords[result.email]).key


async def test_one_unusable_folder_leaves_the_other_users_alone(
    deployment: Deployment, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    (out / ALICE.email).write_text("a file where the folder should be")
    async with deployment.client() as client:
        alice, bob = await BatchEnrollment(client=client, out=out).run([ALICE, BOB])
    assert alice.error is not None
    assert str(out / ALICE.email) in alice.error.message
    assert bob.error is None


async def test_a_batch_goes_on_when_the_rm_is_back_and_issues_once(
    deployment: Deployment, tmp_path: Path
) -> None:
    async with deployment.client() as client:
        interrupted = Interrupted(client, failures=2)
        batch = BatchEnrollment(client=interrupted, out=tmp_path / "out", pause=no_pause)
        (result,) = await batch.run([ALICE])
        assert result.error is None
        statement = EnrollmentFolder(path=result.folder).saved_statement()
        assert statement is not None
        assert result.request_id == statement.request_id.hex()


async def test_a_batch_ends_when_the_rm_stays_away_and_keeps_the_request(
    deployment: Deployment, tmp_path: Path
) -> None:
    async with deployment.client() as client:
        batch = BatchEnrollment(
            client=Interrupted(client, failures=1000), out=tmp_path / "out", pause=no_pause
        )
        (result,) = await batch.run([ALICE])
        assert isinstance(result.error, UnavailableError)
        (again,) = await BatchEnrollment(client=client, out=tmp_path / "out").run([ALICE])
    assert again.error is None
