"""`keyark identities`: a key is made on its owner's machine, and the authority tells who has access."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from keyark.custody.agents import AgentShareKey
from keyark.deployment.access.own_identity import OwnIdentity
from keyark.identity.certificates import fingerprint, request_identity
from keyark.identity.files import IdentityFiles
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate_signing
from keyark.keys.private_keys import PasswordRequiredError, load_private_key
from keyark.service.program.initialization import save_request
from keyark.x509.certificates import encode_certificate, load_certificates
from tests.support.running.deployment import Deployment
from tests.support.running.processes import keyark, run_printed

DOMAIN = ("--trust-domain", "example.org")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority on a machine of its own."""
    folder = tmp_path_factory.mktemp("offline") / "authority"
    keyark("authority", "init", folder, *DOMAIN)
    return folder


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("correct horse battery staple")
    path.chmod(0o600)
    return path


def issued(authority: Path, name: str, folder: Path) -> Path:
    """The certificate for a request, as it comes back."""
    out = folder.with_name(f"{folder.name}-issued.pem")
    keyark("identities", "issue", name, folder / "identity.csr", "--authority", authority, "--out", out)
    return out


@pytest.mark.parametrize("name", ["client/alice", "officer/olga", "auditor/eve", "agent/carol"])
def test_a_person_makes_the_key_and_gets_it_certified(
    authority: Path, tmp_path: Path, password: Path, name: str
) -> None:
    folder, secret = tmp_path / "own", ("--password-file", password)
    keyark("identities", "request", name, *DOMAIN, "--out", folder, *secret)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(PasswordRequiredError):
        load_private_key(folder / "key.pem")
    certificate = issued(authority, name, folder)
    printed = keyark("identities", "install", certificate, "--in", folder, *secret).stdout
    files = IdentityFiles(key=folder / "key.pem", certificate=folder / "cert.pem")
    files.load(ask_password=password.read_bytes)
    share_key = folder / "share-key.pem"
    assert share_key.exists() == (name == "agent/carol") == ("share-key.json" in printed)
    assert not share_key.exists() or b"ENCRYPTED" in share_key.read_bytes()


@pytest.mark.parametrize("name", ["client/zed", "rm"])
def test_a_persons_key_that_stays_unencrypted_is_told(tmp_path: Path, password: Path, name: str) -> None:
    request = ("identities", "request", name, *DOMAIN, "--out")
    told = keyark(*request, tmp_path / "open").stderr
    assert ("not encrypted" in told) == ("--password-file" in told) == (name != "rm")
    assert keyark(*request, tmp_path / "open").stderr == ""
    assert keyark(*request, tmp_path / "closed", "--password-file", password).stderr == ""


@pytest.mark.parametrize(("name", "key"), [("client/alice", "key.pem"), ("rm", "identity-key.pem")])
def test_another_key_waits_beside_the_present_one_until_its_certificate_is_there(
    authority: Path, tmp_path: Path, name: str, key: str
) -> None:
    folder = tmp_path / "own"
    request = ("identities", "request", name, *DOMAIN, "--out", folder)
    keyark(*request)
    keyark("identities", "install", issued(authority, name, folder), "--in", folder)
    before = (folder / key).read_bytes()
    keyark(*request)
    assert (folder / key).read_bytes() == before
    waiting = (folder / key).with_stem(f"{Path(key).stem}-next").read_bytes()
    keyark(*request)  # given again: the key stays, so the request that travels already is good
    certificate = issued(authority, name, folder)
    keyark("identities", "install", certificate, "--in", folder)
    assert (folder / key).read_bytes() == waiting
    assert not (folder / key).with_stem(f"{Path(key).stem}-next").exists()
    keyark("identities", "install", certificate, "--in", folder)  # given again after an interruption


def answered(authority: Path, folder: Path, name: str) -> Path:
    """The authority's answer to a request, as it comes back."""
    told = OwnIdentity(folder).fingerprint
    out = folder.with_name(f"{folder.name}.answer")
    request = f"{name}={folder / 'identity.csr'}"
    keyark("authority", "answer", request, "--fingerprint", told, "--authority", authority, "--out", out)
    return out


def test_an_answer_is_taken_from_the_internal_ca_that_its_operator_told(
    authority: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    keyark("identities", "request", "client/alice", *DOMAIN, "--out", folder)
    keyark("authority", "init", tmp_path / "other", *DOMAIN)
    believed, other = (
        fingerprint(load_certificates(path / "internal-ca.pem")[0])
        for path in (authority, tmp_path / "other")
    )
    install = ("identities", "install", "--in", folder)
    foreign = answered(tmp_path / "other", folder, "client/alice")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "is not the expected one" in keyark(*install, foreign, "--fingerprint", believed, code=1).stderr
    changed = tmp_path / "changed.answer"
    changed.write_bytes(foreign.read_bytes().replace(b"example.org", b"example.net", 1))
    assert "AUTHORITY_ANSWER" in keyark(*install, changed, "--fingerprint", other, code=1).stderr
    alone = issued(authority, "client/alice", folder)
    assert (
        "does not name its internal CA" in keyark(*install, alone, "--fingerprint", believed, code=2).stderr
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    true = answered(authority, folder, "client/alice")
    assert keyark(*install, true, "--fingerprint", believed.upper()).stderr == ""
    assert f"fingerprint {believed}: is it what" in keyark(*install, true).stderr


def test_an_agents_later_certificate_signs_the_share_key_that_is_there(
    authority: Path, tmp_path: Path, password: Path
) -> None:
    """Its public file ended with the certificate of before, and then nobody could name the agent in a change."""
    folder, secret = tmp_path / "own", ("--password-file", password)
    made = []
    for _ in range(2):
        keyark("identities", "request", "agent/carol", *DOMAIN, "--out", folder, *secret)
        certificate = issued(authority, "agent/carol", folder)
        printed = keyark("identities", "install", certificate, "--in", folder, *secret).stdout
        assert "share-key.json" in printed
        made.append(AgentShareKey.from_json((folder / "share-key.json").read_text()))
        assert made[-1].certificate == encode_certificate(load_certificates(certificate)[0])
        made[-1].verify(load_certificates(authority / "internal-ca.pem")[0])
    assert made[0].public_key == made[1].public_key
    assert made[0].certificate != made[1].certificate


def test_a_request_that_got_lost_is_made_again_of_the_same_key(tmp_path: Path, password: Path) -> None:
    folder = tmp_path / "own"
    request = ("identities", "request", "client/alice", *DOMAIN, "--out", folder, "--password-file", password)
    keyark(*request)
    before = (folder / "key.pem").read_bytes()
    (folder / "identity.csr").unlink()
    keyark(*request)
    assert (folder / "key.pem").read_bytes() == before
    assert (folder / "identity.csr").exists()


def test_a_folder_belongs_to_one_identity(authority: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    keyark("identities", "request", "client/alice", *DOMAIN, "--out", folder)
    other = ("identities", "request", "officer/alice", *DOMAIN, "--out", folder)
    assert "client/alice" in keyark(*other, code=1).stderr
    keyark("identities", "install", issued(authority, "client/alice", folder), "--in", folder)
    assert "client/alice" in keyark(*other, code=1).stderr


def test_the_transport_key_and_names_without_a_role_are_refused(tmp_path: Path) -> None:
    for name in ("drm/transport", "king/arthur", "client/", "agent/../rm"):
        keyark("identities", "request", name, *DOMAIN, "--out", tmp_path / "own", code=1)
    assert not (tmp_path / "own").exists()
    assert "--trust-domain" in keyark("identities", "request", "rm", "--out", tmp_path, code=2).stderr


def test_only_the_certificate_that_was_asked_for_is_put_into_force(authority: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    keyark("identities", "request", "client/alice", *DOMAIN, "--out", folder)
    other_key, other_name = tmp_path / "key" / "identity.csr", tmp_path / "name" / "identity.csr"
    for csr, name in ((other_key, "client/alice"), (other_name, "client/bob")):
        csr.parent.mkdir()
        identity = SpiffeId("example.org", name)
        save_request(csr, request_identity(generate_signing(KeyType.EC_P256), identity))
        keyark("identities", "install", issued(authority, name, csr.parent), "--in", folder, code=1)
    elsewhere = tmp_path / "elsewhere"
    keyark("authority", "init", elsewhere, *DOMAIN)
    (folder / "trust-anchor.pem").write_bytes((authority / "internal-ca.pem").read_bytes())
    foreign = issued(elsewhere, "client/alice", folder)
    assert "internal CA" in keyark("identities", "install", foreign, "--in", folder, code=1).stderr
    assert not (folder / "cert.pem").exists()


def test_the_inventory_tells_who_has_access(authority: Path, tmp_path: Path) -> None:
    where = ("--authority", authority)
    folder = tmp_path / "dora"
    keyark("identities", "request", "client/dora", *DOMAIN, "--out", folder)
    certificate = load_certificates(issued(authority, "client/dora", folder))[0]
    again = (
        "identities",
        "issue",
        "client/dora",
        folder / "identity.csr",
        *where,
        "--out",
        tmp_path / "2.pem",
    )
    assert "client/dora has 1 more certificates in force" in keyark(*again).stdout
    keyark("identities", "revoke", "client/dora", "--reason", "keyCompromise", *where)
    serial = f"{certificate.serial_number:x}"
    one, another = json.loads(keyark("identities", "show", "client/dora", *where, "--json").stdout)
    assert (one["serial"], one["state"], one["reason"]) == (serial, "revoked", "keyCompromise")
    assert another["state"] == "revoked"
    shown = keyark("identities", "show", serial, *where).stdout
    assert "revoked on" in shown
    assert "keyCompromise" in shown
    in_force = keyark("identities", "list", "--state", "in force", *where).stdout
    assert "client/dora" not in in_force
    assert "client/dora" in keyark("identities", "list", "--role", "client", *where).stdout
    assert "client/dora" not in keyark("identities", "list", "--role", "agent", *where).stdout
    assert "no record" in keyark("identities", "show", "client/nobody", *where, code=1).stderr
    assert "IDENTITY_REVOKED" in keyark(*again, code=1).stderr


async def test_whoever_is_added_to_a_deployment_is_let_in_at_once(
    deployment: Deployment, tmp_path: Path
) -> None:
    home = deployment.folder
    await run_printed(f"keyark identities request officer/dora --home {home}")
    csr, out = home / "identities/officer/dora/identity.csr", tmp_path / "dora.pem"
    await run_printed(f"keyark identities issue officer/dora {csr} --home {home} --out {out}")
    await run_printed(f"keyark identities install {out} --home {home}")
    listed = await run_printed(f"keyark enrollments list --home {home} --as officer/dora --json")
    assert json.loads(listed) == []
