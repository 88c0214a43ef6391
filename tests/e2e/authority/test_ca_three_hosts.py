"""The issuing CA's commands where CM, DRM, authority and people are on hosts of their own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from cm_service.config import CmConfig
from keyark.config import load_config
from keyark.x509.certificates import load_certificates, save_certificates
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.running.processes import keyark


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """A folder for each host."""

    cm: Path
    drm: Path
    people: Path
    authority: Path

    def sign(self, request: Path, name: str, out: Path) -> None:
        keyark("authority", "sign-ca", request, "--authority", self.authority, "--name", name, "--out", out)

    def gather(self) -> Path:
        """Put it all below one folder again, in which the services find what they have."""
        shutil.move(self.cm / "cm", self.people / "cm")
        shutil.move(self.drm / "drm", self.people / "drm")
        return self.people


@pytest.fixture
def hosts(deployment_folder: Path, tmp_path: Path) -> Hosts:
    hosts = Hosts(
        cm=tmp_path / "cm-host", drm=tmp_path / "drm-host", people=deployment_folder,
        authority=tmp_path / "offline" / "authority",
    )  # fmt: skip
    for role, target in (("cm", hosts.cm / "cm"), ("drm", hosts.drm / "drm"), ("authority", hosts.authority)):
        target.parent.mkdir()
        shutil.move(deployment_folder / role, target)
    return hosts


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def enroll(deployment: Deployment) -> x509.Certificate:
    async with deployment.client() as client:
        result = await client.enroll(common_name="Alice", email="alice@example.org")
    return result.signing_certificate


def carry(hosts: Hosts, told: str) -> None:
    """What the command says: the chains to the DRM and, by a bundle, to people."""
    public = hosts.cm / "ca.pem"
    assert f"copy {public} over drm/ca.pem" in told
    assert "keyark home bundle" in told
    assert told.rstrip().endswith("then restart the CM")
    shutil.copy(public, hosts.drm / "drm" / "ca.pem")
    bundle = hosts.authority.parent / "deployment.toml"
    keyark(
        "home", "bundle", "--home", hosts.people, "--authority", hosts.authority, "--ca", public, "--out", bundle
    )  # fmt: skip
    keyark("home", "update", "--from", bundle, "--home", hosts.people)


async def test_rollover_at_the_cm_says_what_to_carry_and_the_new_key_signs(hosts: Hosts) -> None:
    before = load_certificates(hosts.cm / "cm" / "ca.pem")
    words = ("ca", "rollover", "--home", hosts.cm, "--name", "Issuing CA 2")
    config = (hosts.cm / "cm" / "cm.toml").read_bytes()
    assert f"have {hosts.cm / 'cm' / 'ca-1.csr'} signed" in keyark(*words).stdout
    assert (hosts.cm / "cm" / "cm.toml").read_bytes() == config
    assert sorted(path.name for path in hosts.cm.iterdir()) == ["cm"]
    hosts.sign(hosts.cm / "cm" / "ca-1.csr", "Issuing CA 2", hosts.cm / "cm" / "ca-1.pem")
    carry(hosts, keyark(*words).stdout)
    assert load_config(hosts.cm / "cm" / "cm.toml", CmConfig).issuer.generation == 1
    new = load_certificates(hosts.cm / "cm" / "ca-1.pem")
    assert load_certificates(hosts.cm / "ca.pem") == [new[0], *before]
    assert sorted(path.name for path in hosts.cm.iterdir()) == ["ca.pem", "cm"]
    async with running(hosts.gather()) as deployment:
        (await enroll(deployment)).verify_directly_issued_by(new[0])


@pytest.mark.parametrize("with_chains_of_before", ["the chain", "as ca.pem"])
async def test_install_at_the_cm_takes_the_chain_also_in_the_form_of_ca_pem(
    hosts: Hosts, tmp_path: Path, with_chains_of_before: str
) -> None:
    before = load_certificates(hosts.cm / "cm" / "ca.pem")
    name = before[0].subject.rfc4514_string().removeprefix("CN=")
    keyark("ca", "request", "--home", hosts.cm, "--out", tmp_path / "ca.csr")
    hosts.sign(tmp_path / "ca.csr", name, tmp_path / "answer.pem")
    new, root = load_certificates(tmp_path / "answer.pem")
    if with_chains_of_before == "as ca.pem":
        save_certificates(tmp_path / "answer.pem", [new, *before])
    carry(hosts, keyark("ca", "install", tmp_path / "answer.pem", "--home", hosts.cm).stdout)
    assert new != before[0]
    for path in (hosts.cm / "ca.pem", hosts.cm / "cm" / "ca.pem", hosts.people / "ca.pem"):
        assert load_certificates(path) == [new, before[0], root]
    async with running(hosts.gather()) as deployment:
        (await enroll(deployment)).verify_directly_issued_by(new)


def test_chains_of_before_leave_no_room_for_strangers(hosts: Hosts, tmp_path: Path) -> None:
    keyark("authority", "init", tmp_path / "other", "--trust-domain", "example.net")
    (stranger,) = load_certificates(tmp_path / "other" / "root.pem")
    keyark("ca", "request", "--home", hosts.cm, "--out", tmp_path / "ca.csr")
    before = load_certificates(hosts.cm / "cm" / "ca.pem")
    hosts.sign(
        tmp_path / "ca.csr", before[0].subject.rfc4514_string().removeprefix("CN="), tmp_path / "answer.pem"
    )
    new = load_certificates(tmp_path / "answer.pem")[0]
    save_certificates(tmp_path / "answer.pem", [new, stranger, *before])
    files = everything(hosts.cm)
    told = keyark("ca", "install", tmp_path / "answer.pem", "--home", hosts.cm, code=1).stderr
    assert "2 roots" in told
    assert everything(hosts.cm) == files


@pytest.mark.parametrize(
    "words",
    [
        ("show",),
        ("request", "--out", "ca.csr"),
        ("install", "chain.pem"),
        ("rollover", "--name", "Issuing CA 2"),
    ],
)
def test_where_the_cm_is_not_the_commands_name_its_host_and_change_nothing(
    hosts: Hosts, words: tuple[str, ...]
) -> None:
    before = everything(hosts.drm)
    told = keyark("ca", *words, "--home", hosts.drm, code=1).stderr
    assert "on the CM's host" in told
    assert "CM_ELSEWHERE" in told
    assert "keyark-cm ca-request cm/cm.toml" in told
    assert everything(hosts.drm) == before


def test_a_rollover_that_cannot_switch_leaves_the_chains_as_they_were(
    deployment_template: Path, tmp_path: Path
) -> None:
    home = copy_deployment(deployment_template, tmp_path / "deployment")
    config = home / "cm" / "cm.toml"
    config.write_text(config.read_text().replace('chain = "ca.pem"', "'chain' = \"ca.pem\""))
    before = {
        path: (home / path).read_bytes() for path in ("ca.pem", "drm/ca.pem", "cm/ca.pem", "cm/cm.toml")
    }
    told = keyark("ca", "rollover", "--home", home, "--name", "Issuing CA 2", code=1).stderr
    assert "change it by hand" in told
    assert {path: (home / path).read_bytes() for path in before} == before
