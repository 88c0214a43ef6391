"""Three hosts are set up and kept with the commands of the guides, in their order and with nothing else."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from keyark.deployment.access.authority import DeploymentAuthority
from keyark.errors import KeyarkError
from keyark.identity.certificates import request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, narrow_signing_key
from keyark.keys.private_keys import load_private_key
from keyark.service.program.answers import Answer, AnswerError, install_answer, write_answer
from keyark.service.program.initialization import save_request
from keyark.x509.certificates import load_certificates
from tests.support.running.deployment import edit
from tests.support.running.processes import keyark
from tests.support.stories.three_hosts import ThreeHosts, commands, is_command

MOST = 15
GUIDE_OF_LIFE = "three-hosts.md"
GUIDE = commands("deployment.md", "On three hosts")
FIRST_START = next(number for number, line in enumerate(GUIDE) if " serve " in line) - 4
"""The line before the first service starts: what its host gets is copied before."""


@dataclass(frozen=True)
class Ceremony:
    """What all hosts have when the authority answered, in one folder."""

    folder: Path
    printed: dict[str, str]

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Give a command of the guide there."""
        for word, value in self.printed.items():
            line = line.replace(f" {word} ", f" {value} ")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["env", f"PATH={path}", *shlex.split(line)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeHosts]:
    """All commands of the guide but the last three, which run the services."""
    hosts = ThreeHosts(tmp_path_factory.mktemp("network"))
    try:
        hosts.follow(GUIDE[:FIRST_START])
        yield hosts
    finally:
        hosts.close()


@pytest.fixture(scope="module")
def answered_folder(made: ThreeHosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answered")
    for host in made.hosts.values():
        shutil.copytree(host.folder, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def hosts(made: ThreeHosts, answered_folder: Path) -> ThreeHosts:
    """The services run, somebody enrolled, and the agents have homes."""
    assert answered_folder.exists()
    made.follow(GUIDE[FIRST_START:])
    made.follow(commands(GUIDE_OF_LIFE, "The first person"))
    made.follow(commands(GUIDE_OF_LIFE, "The agents' homes"))
    return made


@pytest.fixture
def ceremony(made: ThreeHosts, answered_folder: Path, tmp_path: Path) -> Ceremony:
    """A copy of it for one test."""
    return Ceremony(shutil.copytree(answered_folder, tmp_path / "hosts"), made.printed)


def test_three_hosts_take_fifteen_commands() -> None:
    assert len([line for line in GUIDE if is_command(line)]) <= MOST


def test_somebody_enrolls_and_the_agents_bring_the_key_back(hosts: ThreeHosts) -> None:
    recover(hosts, "alice@example.org", "bob", "carol")


def test_a_year_on_three_hosts(hosts: ThreeHosts) -> None:
    """What changes in a year, in the order of the guide; after each change somebody enrolls, and keys come back."""
    hosts.follow(commands(GUIDE_OF_LIFE, "Another transport key"))
    hosts.follow(commands(GUIDE_OF_LIFE, "A bundle for all homes"))
    enroll(hosts, "rotated")
    assert (
        '"generation": 2, "key_id"'
        in hosts.hosts["drm"].run("keyark-drm transport-key list drm/drm.toml").stdout
    )
    hosts.follow(commands(GUIDE_OF_LIFE, "A CA certificate that ends later"))
    enroll(hosts, "installed")
    assert issuer_of(hosts, "installed") == certificate(hosts, "cm", "chain.pem")
    hosts.follow(commands(GUIDE_OF_LIFE, "Another key of the CA"))
    enroll(hosts, "rolled")
    assert issuer_of(hosts, "rolled") == certificate(hosts, "authority", "ca-1.pem")
    hosts.follow(commands(GUIDE_OF_LIFE, "A service's certificate"))
    enroll(hosts, "renewed")
    assert certificate(hosts, "rm", "rm/identity.pem") == certificate(hosts, "authority", "rm.pem")
    recover(hosts, "rolled@example.org", "bob", "carol")
    hosts.follow(commands(GUIDE_OF_LIFE, "An agent leaves, another comes"))
    assert "IDENTITY_REVOKED" in hosts.hosts["carol"].run("keyark recover list --home home", code=1).stderr
    recover(hosts, "alice@example.org", "bob", "dave")
    hosts.follow(commands(GUIDE_OF_LIFE, "A backup of the DRM"))
    enroll(hosts, "lost")
    hosts.follow(commands(GUIDE_OF_LIFE, "The DRM from its backup"))
    hosts.hosts["dave"].run("mv home/checkpoints/drm.note drm.note.lost")
    enroll(hosts, "restored")
    move_to_ipv6(hosts)
    enroll(hosts, "six")
    recover(hosts, "installed@example.org", "bob", "dave")


def move_to_ipv6(hosts: ThreeHosts) -> None:
    """The DRM listens on IPv6 alone; the RM's configuration names a dead address before it."""
    six, dead = f"[{hosts.network.address6('drm')}]:7712", f"{hosts.network.address('people')}:7712"
    for role in ("rm", "drm"):
        hosts.stop(role)
    edit(hosts.hosts["drm"].folder / "drm" / "drm.toml", '"0.0.0.0:7712"', f'"{six}"')
    edit(hosts.hosts["rm"].folder / "rm" / "rm.toml", '"drm.example.org:7712"', f'["{dead}", "{six}"]')
    for role in ("drm", "rm"):
        hosts.start(role)
    hosts.give(
        "authority", f"keyark home bundle --home home --authority authority --drm {six} --out deployment.toml"
    )
    hosts.hosts["rm"].bring("deployment.toml", hosts.hosts["authority"], "rm/deployment.toml")


def certificate(hosts: ThreeHosts, name: str, file: str) -> x509.Certificate:
    return load_certificates(hosts.hosts[name].folder / file)[0]


def issuer_of(hosts: ThreeHosts, who: str) -> x509.Certificate:
    """The certificate of the CA that issued somebody's certificate, as the person got it."""
    return load_certificates(hosts.hosts["people"].folder / who / "chain.pem")[0]


def enroll(hosts: ThreeHosts, who: str) -> None:
    hosts.give("people", f"keyark enroll --name {who} --email {who}@example.org --out {who} --home home")


def recover(hosts: ThreeHosts, email: str, *agents: str) -> None:
    hosts.give("alice", f"keyark recover request --owner {email} --reason lost --home home")
    for agent in agents:
        hosts.give(agent, "keyark recover approve CEREMONY --yes --home home")
    file = f"{hosts.printed['CEREMONY']}.p12"
    hosts.give("alice", f"keyark recover collect CEREMONY --out {file} --home home")
    assert (hosts.hosts["alice"].folder / file).exists()


def answered(ceremony: Ceremony, *words: object, code: int = 0) -> str:
    done = keyark(
        "authority", "answer", *words, "--authority", ceremony.folder / "authority",
        "--out", ceremony.folder / "new.answer", code=code,
    )  # fmt: skip
    return done.stderr


@pytest.mark.parametrize(
    ("name", "file", "whose"),
    [("rm", "cm/request.json", "CM"), ("officer/mallory", "alice/identity.csr", "ALICE")],
)
def test_a_request_of_somebody_else_is_not_answered(
    ceremony: Ceremony, name: str, file: str, whose: str
) -> None:
    told = ceremony.printed[whose]
    answered(ceremony, f"{name}={ceremony.folder / file}", "--fingerprint", told, code=1)
    assert not (ceremony.folder / "new.answer").exists()


def test_a_request_that_was_exchanged_on_its_way_is_not_answered(ceremony: Ceremony) -> None:
    """An attacker on the network replaces the RM's request by one with a key of their own."""
    shutil.rmtree(ceremony.folder / "rm")
    ceremony.run(next(line for line in GUIDE if "keyark-rm init" in line)).check_returncode()
    file = f"rm={ceremony.folder / 'rm' / 'request.json'}"
    before = files_of(ceremony.folder / "authority")
    told = answered(ceremony, file, "--fingerprint", ceremony.printed["CM"], code=1)
    assert "not among the expected ones" in told
    assert "--fingerprint" in answered(ceremony, file, code=2)
    assert files_of(ceremony.folder / "authority") == before
    assert not (ceremony.folder / "new.answer").exists()


def test_init_refuses_another_internal_ca(ceremony: Ceremony) -> None:
    line = next(line for line in GUIDE if "keyark-rm init" in line)
    done = ceremony.run(line.replace(" rm ", " other ").replace("FINGERPRINT", "00"))
    assert done.returncode == 1
    assert "is not the expected one" in done.stderr
    assert not (ceremony.folder / "other").exists()


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_service_takes_no_answer_of_another_ca(ceremony: Ceremony) -> None:
    """Neither one that another internal CA signed, nor one whose words were changed on the way."""
    folder = ceremony.folder
    before = files_of(folder / "drm")
    keyark("authority", "init", folder / "other", "--trust-domain", "example.org")
    requests = [f"{role}={folder / role / 'request.json'}" for role in ("rm", "cm", "drm")]
    told = [word for role in ("RM", "CM", "DRM") for word in ("--fingerprint", ceremony.printed[role])]
    addresses = [word for role in ("rm", "cm", "drm") for word in (f"--{role}", "127.0.0.1:1")]
    keyark(
        "authority", "answer", *requests, *told, *addresses, "--authority", folder / "other",
        "--out", folder / "foreign.answer", "--bundle", folder / "foreign.toml",
    )  # fmt: skip
    changed = (folder / "services.answer").read_bytes().replace(b"example.org", b"example.net", 1)
    (folder / "changed.answer").write_bytes(changed)
    for name in ("foreign.answer", "changed.answer"):
        with pytest.raises(AnswerError, match="not signed by the internal CA"):
            install_answer(folder / "drm", "drm", folder / name)
    assert files_of(folder / "drm") == before


def test_a_service_takes_no_answer_for_other_keys_or_without_its_part(ceremony: Ceremony) -> None:
    folder = ceremony.folder
    with pytest.raises(AnswerError, match="has nothing for rm"):
        install_answer(folder / "rm", "rm", folder / "agents.answer")
    shutil.rmtree(folder / "cm")
    ceremony.run(next(line for line in GUIDE if "keyark-cm init" in line)).check_returncode()
    before = files_of(folder / "cm")
    with pytest.raises(AnswerError, match="for another key"):
        install_answer(folder / "cm", "cm", folder / "services.answer")
    assert files_of(folder / "cm") == before


def test_a_drm_takes_no_transport_certificate_of_another_key(ceremony: Ceremony) -> None:
    folder = ceremony.folder / "drm"
    request = folder / "transport-keys" / "1" / "transport.csr"
    asked = request.read_bytes()
    request.write_bytes((folder / "identity.csr").read_bytes())
    before = files_of(folder)
    with pytest.raises(AnswerError, match="for another key"):
        install_answer(folder, "drm", ceremony.folder / "services.answer")
    assert files_of(folder) == before
    request.write_bytes(asked)


@pytest.mark.parametrize("what", ["of another CA", "of somebody else"])
def test_a_service_takes_no_certificate_of_another_ca_or_of_somebody_else_even_if_the_answer_is_signed(
    ceremony: Ceremony, tmp_path: Path, what: str
) -> None:
    """An authority that errs, or a program that signs answers for it, puts no service under another name."""
    folder = ceremony.folder
    authority, key = DeploymentAuthority.load(folder / "authority"), folder / "rm" / "identity-key.pem"
    issuer = authority
    if what == "of another CA":
        issuer = DeploymentAuthority.create(
            tmp_path / "other", trust_domain="example.org", root_key_type=KeyType.EC_P256, key_password=None
        )
    name = SpiffeId("example.org", "rm" if what == "of another CA" else "client/mallory")
    save_request(tmp_path / "asked.csr", request_identity(narrow_signing_key(load_private_key(key)), name))
    issuer.sign_identity(tmp_path / "asked.csr", name, tmp_path / "issued.pem")
    content = Answer.parse((folder / "services.answer").read_bytes()).content
    certificates = content.certificates | {"rm": (tmp_path / "issued.pem").read_text()}
    made_up = content.model_copy(update={"certificates": certificates})
    write_answer(tmp_path / "answer", made_up, authority.internal.private_key)
    before = files_of(folder / "rm")
    with pytest.raises(KeyarkError, match=r"not from this internal CA|does not name spiffe://example.org/rm"):
        install_answer(folder / "rm", "rm", tmp_path / "answer")
    assert files_of(folder / "rm") == before


def test_what_is_taken_comes_from_the_answer_once(ceremony: Ceremony) -> None:
    folder = ceremony.folder
    taken = install_answer(folder / "drm", "drm", folder / "services.answer")
    assert [str(path.relative_to(folder / "drm")) for path in taken] == [
        "transport-keys/1/transport.pem",
        "ca.pem",
        "identity.pem",
    ]
    answer = Answer.parse((folder / "services.answer").read_bytes())
    assert load_certificates(folder / "drm" / "ca.pem") == answer.chain("ca")
    assert install_answer(folder / "drm", "drm", folder / "services.answer") == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"answer": 1, "signature": ""}', b"\xff"])
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(AnswerError, match="not a file of `keyark authority answer`"):
        Answer.parse(data)
