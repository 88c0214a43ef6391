"""No file of another run or a person in --out is ever replaced, and keys are kept in the form that is asked for."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from cm_service.rollover import make_key
from keyark.client.access.passwords import read_made_password
from keyark.client.enrollment.batch import BatchEnrollment
from keyark.client.enrollment.client import EnrollmentClient
from keyark.client.enrollment.folder import EnrollmentFolder, FolderTakenError, KeyFormat, OtherFormError
from keyark.client.enrollment.single import EnrollmentOrder, enroll_into
from keyark.client.enrollment.user_list import UserListError
from keyark.errors import ConfigurationError
from keyark.files import LaxPermissionsError
from keyark.keys.key_types import KeyType, generate
from keyark.keys.password_files import PasswordFileError
from keyark.keys.private_keys import load_private_key, save_private_key
from keyark.x509.pkcs12 import Pkcs12Form, form_of
from tests.support.running.deployment import copy_deployment, running

OLGA = EnrollmentOrder(common_name="Olga Example", email="olga@example.org")
PAUL = EnrollmentOrder(common_name="Paul Example", email="paul@example.org")
PASSWORD = b"four unrelated words here"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(deployment_template, tmp_path_factory) -> AsyncIterator[EnrollmentClient]:
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("folders") / "deployment")
    async with running(folder) as deployment, deployment.client() as client:
        yield client


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("key_format", KeyFormat)
@pytest.mark.parametrize("order", [PAUL, OLGA])
async def test_keys_whose_statement_is_gone_are_not_replaced(
    client: EnrollmentClient, tmp_path: Path, key_format: KeyFormat, order: EnrollmentOrder
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "ov", key_format=key_format)
    await enroll_into(client, folder, OLGA)
    (folder.path / "statement.bin").unlink()
    before = contents(folder.path)
    with pytest.raises(FolderTakenError, match="choose a new folder"):
        await enroll_into(client, folder, order)
    with pytest.raises(FolderTakenError):
        folder.save(await client.prepare(common_name=order.common_name, email=order.email))
    assert contents(folder.path) == before


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("key_format", KeyFormat)
@pytest.mark.parametrize(
    "name",
    [
        "signing-key.pem",
        "encryption-key.pem",
        "keys.p12",
        "signing.p12",
        "chain.pem",
        "password.txt",
        "letter.txt",
    ],
)
async def test_a_folder_with_files_of_something_else_is_refused(
    client: EnrollmentClient, tmp_path: Path, key_format: KeyFormat, name: str
) -> None:
    folder = tmp_path / "other"
    folder.mkdir(mode=0o755)
    (folder / name).write_text("a")
    with pytest.raises(FolderTakenError, match="choose a new folder") as caught:
        await enroll_into(client, EnrollmentFolder(path=folder, key_format=key_format), OLGA)
    assert "chmod" not in caught.value.message
    assert contents(folder) == {name: b"a"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5])
async def test_keys_of_a_request_that_was_never_sent_give_way(
    client: EnrollmentClient, tmp_path: Path, kept: int
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "out", key_format=KeyFormat.P12)
    folder.save(await client.prepare(common_name=PAUL.common_name, email=PAUL.email))
    (folder.path / "statement.bin").rename(folder.path / ".unsent.bin")
    written = (".unsent.bin", "password.txt", "signing-key.pem", "encryption-key.pem", "transport.pem")
    for name in written[kept:]:
        (folder.path / name).unlink()
    (folder.path / ".signing-key.pem.a1b2c3").write_text("never completed")
    assert (await enroll_into(client, folder, OLGA)).email == OLGA.email
    folder.check_kept_keys()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_key_that_the_interrupted_run_did_not_write_is_kept(
    client: EnrollmentClient, tmp_path: Path
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "out")
    folder.save(await client.prepare(common_name=PAUL.common_name, email=PAUL.email))
    (folder.path / "statement.bin").rename(folder.path / ".unsent.bin")
    (folder.path / "signing-key.pem").unlink()
    save_private_key(folder.path / "signing-key.pem", generate(KeyType.EC_P256))
    before = contents(folder.path)
    with pytest.raises(FolderTakenError, match=r"signing-key\.pem"):
        await enroll_into(client, folder, PAUL)
    assert contents(folder.path) == before


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["keys.p12", "signing.pem"])
async def test_what_was_put_into_the_folder_while_a_request_waited_is_kept(
    client: EnrollmentClient, tmp_path: Path, name: str
) -> None:
    folder = EnrollmentFolder(path=tmp_path / "out", key_format=KeyFormat.P12)
    folder.save(await client.prepare(common_name=OLGA.common_name, email=OLGA.email))
    (folder.path / name).write_text("of a person")
    with pytest.raises(FolderTakenError, match="move it away"):
        await enroll_into(client, folder, OLGA)
    assert (folder.path / name).read_text() == "of a person"
    assert (folder.path / "signing-key.pem").exists()
    (folder.path / name).unlink()
    await enroll_into(client, folder, OLGA)
    folder.check_kept_keys()


FORMS = {
    "PEM": {},
    "PEM with a password": {"password": PASSWORD},
    "PKCS#12": {"key_format": KeyFormat.P12},
    "compatible": {"key_format": KeyFormat.P12, "pkcs12_form": Pkcs12Form.COMPATIBLE},
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("first", FORMS)
async def test_a_finished_folder_says_issued_only_for_the_form_that_it_keeps(
    client: EnrollmentClient, tmp_path: Path, first: str
) -> None:
    path = tmp_path / "out"
    done = await enroll_into(client, EnrollmentFolder(path=path, **FORMS[first]), OLGA)
    before = contents(path)
    for form, options in FORMS.items():
        again = EnrollmentFolder(path=path, **options)
        if form == first:
            assert await enroll_into(client, again, OLGA) == done
            continue
        with pytest.raises(ConfigurationError) as caught:
            await enroll_into(client, again, OLGA)
        assert isinstance(caught.value, OtherFormError) or "is encrypted" in caught.value.message
    assert contents(path) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_a_waiting_request_takes_pkcs12_and_refuses_another_pem(
    client: EnrollmentClient, tmp_path: Path
) -> None:
    plain = EnrollmentFolder(path=tmp_path / "plain")
    plain.save(await client.prepare(common_name=OLGA.common_name, email=OLGA.email))
    with pytest.raises(OtherFormError, match="PEM without a password"):
        await enroll_into(client, EnrollmentFolder(path=plain.path, password=PASSWORD), OLGA)
    (plain.path / "password.txt").write_text("a")
    (plain.path / "password.txt").chmod(0o600)
    as_pkcs12 = EnrollmentFolder(path=plain.path, **FORMS["compatible"])
    with pytest.raises(PasswordFileError, match="password that keyark generated"):
        await enroll_into(client, as_pkcs12, OLGA)
    (plain.path / "password.txt").unlink()
    await enroll_into(client, as_pkcs12, OLGA)
    assert form_of((plain.path / "keys.p12").read_bytes()) is Pkcs12Form.COMPATIBLE
    assert read_made_password(plain.path / "password.txt")
    assert not (plain.path / "signing-key.pem").exists()
    made = EnrollmentFolder(path=tmp_path / "made", key_format=KeyFormat.P12)
    made.save(await client.prepare(common_name=PAUL.common_name, email=PAUL.email))
    with pytest.raises(OtherFormError, match="PEM with a password"):
        await enroll_into(client, EnrollmentFolder(path=made.path), PAUL)


def test_the_next_ca_key_is_kept_when_its_request_was_moved_away(deployment_folder: Path) -> None:
    config = deployment_folder / "cm" / "cm.toml"
    request = Path(make_key(config, "Next CA", "ec-p256")["request"])
    (key_path,) = request.parent.glob("ca-key-*.pem")
    key = key_path.read_bytes()
    request.unlink()
    make_key(config, "Next CA", "ec-p256")
    assert key_path.read_bytes() == key
    request.unlink()
    with pytest.raises(ConfigurationError, match="--ca-key ec-p256"):
        make_key(config, "Next CA", "ec-p384")
    assert load_private_key(key_path)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("key_format", KeyFormat)
async def test_a_folder_of_a_list_that_others_may_write_is_refused_before_anybody_is_enrolled(
    client: EnrollmentClient, tmp_path: Path, key_format: KeyFormat
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    with pytest.raises(LaxPermissionsError, match=r"mode 0777"):
        await BatchEnrollment(client=client, out=out, key_format=key_format).run([OLGA])
    assert list(tmp_path.glob("out/*")) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_row_of_a_list_that_was_refused_starts_anew_once_its_folder_is_deleted(
    client: EnrollmentClient, tmp_path: Path
) -> None:
    batch = BatchEnrollment(client=client, out=tmp_path / "out")
    refused = replace(PAUL, common_name="Paul")
    folder = EnrollmentFolder(path=tmp_path / "out" / PAUL.email)
    folder.make_usable()
    folder.save(await client.prepare(common_name=refused.common_name, email=refused.email))
    (result,) = await batch.run([PAUL])
    assert result.error is not None
    assert "If that request was refused, you can delete this one instead" in result.error.message
    shutil.rmtree(folder.path)
    (result,) = await batch.run([PAUL])
    assert result.error is None


@pytest.mark.asyncio(loop_scope="module")
async def test_an_unknown_profile_of_a_list_is_told_before_anybody_is_enrolled(
    client: EnrollmentClient, tmp_path: Path
) -> None:
    batch = BatchEnrollment(client=client, out=tmp_path / "out")
    await batch.check_profiles([OLGA, PAUL])
    wrong = [replace(PAUL, profile="usr"), replace(OLGA, profile="usr")]
    with pytest.raises(UserListError, match=r"'?usr'?.*paul@example\.org and 1 other row\."):
        await batch.check_profiles([OLGA, *wrong])
