"""Three hosts are set up with the commands of docs/deployment.md, in their order and with nothing else."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.ports import free_ports
from keyark.errors import KeyarkError
from keyark.identity.certificates import request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, narrow_signing_key
from keyark.keys.private_keys import load_private_key
from keyark.programs import python_command
from keyark.service.program.answers import Answer, AnswerError, take_answer, write_answer
from keyark.service.program.initialization import save_request
from keyark.x509.certificates import load_certificates
from tests.support.running.processes import keyark

GUIDE = Path(__file__).parents[3] / "docs" / "deployment.md"
MOST = 15
FINGERPRINTS = re.compile(r"fingerprint[^\n]*?\b([0-9a-f]{64})\b")
STORAGE_KEY = re.compile(r'"storage_key_id": "([0-9a-f]{64})"')


def guide() -> list[str]:
    """The commands of the guide."""
    section = GUIDE.read_text().partition("## On three hosts")[2]
    block = section.partition("```sh\n")[2].partition("```")[0]
    return [line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


class Ceremony:
    """The guide's commands, carried out in one folder in which each host and person has an own one."""

    def __init__(self, folder: Path, base: int) -> None:
        self.folder, self.base, self.printed = folder, base, dict[str, str]()

    def words(self, command: str) -> list[str]:
        """The command with what was printed before in place of the words in capitals, and ports that are free."""
        for name, value in self.printed.items():
            command = re.sub(rf"(?<= ){name}(?= |$)", value, command)
        command = re.sub(r"(?:0\.0\.0\.0|\w+\.example\.org):771(\d)", self._address, command)
        program, *words = shlex.split(command)
        role = program.removeprefix("keyark-")
        return python_command("keyark.cli" if role == "keyark" else f"{role}_service", *words)

    def _address(self, found: re.Match[str]) -> str:
        return f"127.0.0.1:{self.base + int(found[1])}"

    def run(self, command: str) -> None:
        done = subprocess.run(
            self.words(command),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        told = FINGERPRINTS.findall(done.stdout + done.stderr)
        if " init authority" in command:
            self.printed["FINGERPRINT"] = told[0]
        elif " init " in command or " request " in command:
            name = re.search(r" init (\w+)| agent/(\w+)", command)
            assert name is not None
            self.printed[(name[1] or name[2]).upper()] = told[0]
        if found := STORAGE_KEY.search(done.stdout):
            self.printed["STORAGE_KEY"] = found[1]

    @contextlib.contextmanager
    def serving(self, command: str) -> Iterator[None]:
        """Run a service, ready when this yields."""
        with subprocess.Popen(
            self.words(command), cwd=self.folder, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert " ready at " in process.stdout.readline()
                yield
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ceremony:
    """All commands of the guide but the last three, which run the services."""
    ceremony = Ceremony(tmp_path_factory.mktemp("hosts"), free_ports())
    for command in guide()[:-3]:
        ceremony.run(command)
    return ceremony


@pytest.fixture
def ceremony(made: Ceremony, tmp_path: Path) -> Ceremony:
    """A copy of it for one test."""
    copy = Ceremony(shutil.copytree(made.folder, tmp_path / "hosts"), made.base)
    copy.printed = dict(made.printed)
    return copy


def test_fifteen_commands_make_three_hosts_and_somebody_enrolls(ceremony: Ceremony) -> None:
    assert len(guide()) <= MOST
    folder, told = ceremony.folder, ceremony.printed["FINGERPRINT"]
    home = folder / "home"
    with contextlib.ExitStack() as stack:
        for command in guide()[-3:]:
            stack.enter_context(ceremony.serving(command))
        keyark("home", "create", home, "--from", folder / "deployment.toml", "--fingerprint", told)
        request = keyark("identities", "request", "client/enroller", "--home", home).stdout
        place = home / "identities" / "client" / "enroller"
        keyark(
            "authority", "answer", f"client/enroller={place / 'identity.csr'}", "--authority", folder / "authority",
            "--fingerprint", FINGERPRINTS.findall(request)[0], "--out", folder / "people.answer",
        )  # fmt: skip
        keyark("identities", "install", folder / "people.answer", "--in", place, "--home", home)
        words = ("--name", "Alice", "--email", "alice@example.org", "--out", folder / "alice-keys")
        keyark("enroll", *words, "--home", home)
    for command in guide()[-3:]:  # with their identities they need no answer
        (folder / "services.answer").unlink(missing_ok=True)
        with ceremony.serving(command):
            pass


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
    ceremony.run(next(command for command in guide() if "keyark-rm init" in command))
    file = f"rm={ceremony.folder / 'rm' / 'request.json'}"
    before = files_of(ceremony.folder / "authority")
    told = answered(ceremony, file, "--fingerprint", ceremony.printed["CM"], code=1)
    assert "which was not expected" in told
    assert "--fingerprint" in answered(ceremony, file, code=2)
    assert files_of(ceremony.folder / "authority") == before
    assert not (ceremony.folder / "new.answer").exists()


def test_init_refuses_another_internal_ca(ceremony: Ceremony) -> None:
    command = next(command for command in guide() if "keyark-rm init" in command)
    words = ceremony.words(
        command.replace(" rm ", " other ").replace("--fingerprint FINGERPRINT", "--fingerprint 00")
    )
    done = subprocess.run(words, cwd=ceremony.folder, capture_output=True, text=True, check=False)
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
            take_answer(folder / "drm", "drm", folder / name)
    assert files_of(folder / "drm") == before


def test_a_service_takes_no_answer_for_other_keys_or_without_its_part(ceremony: Ceremony) -> None:
    folder = ceremony.folder
    with pytest.raises(AnswerError, match="holds nothing for rm"):
        take_answer(folder / "rm", "rm", folder / "agents.answer")
    shutil.rmtree(folder / "cm")
    ceremony.run(next(command for command in guide() if "keyark-cm init" in command))
    before = files_of(folder / "cm")
    with pytest.raises(AnswerError, match="of another key"):
        take_answer(folder / "cm", "cm", folder / "services.answer")
    assert files_of(folder / "cm") == before


def test_a_drm_takes_no_transport_certificate_of_another_key(ceremony: Ceremony) -> None:
    folder = ceremony.folder / "drm"
    request = folder / "transport-keys" / "1" / "transport.csr"
    asked = request.read_bytes()
    request.write_bytes((folder / "identity.csr").read_bytes())
    before = files_of(folder)
    with pytest.raises(AnswerError, match="of another key"):
        take_answer(folder, "drm", ceremony.folder / "services.answer")
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
    with pytest.raises(KeyarkError, match=r"not from this internal CA|is not of spiffe://example.org/rm"):
        take_answer(folder / "rm", "rm", tmp_path / "answer")
    assert files_of(folder / "rm") == before


def test_what_is_taken_comes_from_the_answer_once(ceremony: Ceremony) -> None:
    folder = ceremony.folder
    taken = take_answer(folder / "drm", "drm", folder / "services.answer")
    assert [str(path.relative_to(folder / "drm")) for path in taken] == [
        "transport-keys/1/transport.pem",
        "ca.pem",
        "identity.pem",
    ]
    answer = Answer.parse((folder / "services.answer").read_bytes())
    assert load_certificates(folder / "drm" / "ca.pem") == answer.chain("ca")
    assert take_answer(folder / "drm", "drm", folder / "services.answer") == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"answer": 1, "signature": ""}', b"\xff"])
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(AnswerError, match="no answer of the authority"):
        Answer.parse(data)
