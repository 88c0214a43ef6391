"""Guards documents: what they name exists, and their snippets are programs that run."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from google.protobuf.message import Message

import keyark.client
from keyark.cli.main import main
from keyark.errors.remedies import REMEDIES
from keyark.v1.revocation_pb2 import RevocationStatement
from keyark.v1.statement_pb2 import CallStatement, EnrollmentStatement
from tests.support.running.deployment import Deployment
from tests.support.stories.recovering import lose_key

ROOT = Path(__file__).parent
DOCUMENTS = [ROOT.parent / "README.md", *sorted((ROOT.parent / "docs").glob("*.md"))]
NAMED = re.compile(r"`([a-z0-9_/]+(?:\.py|/))?(?:::(\w+))?`")
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(
    r"(?:^(?: {4}|\t).*\n)+|^```(?:sh|shell|console|bash)?\n.*?^```$", re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(r"^\s*(?:\$ )?(?:sudo (?:-u \S+ )?)?(?:\S*/bin/)?keyark ((?![-:=]).*)$")


def test_every_test_that_the_promises_name_exists():
    """`folder/test_file.py::test_name`; `::test_name` is in the file that was named before it."""
    named, file = 0, None
    for path, name in NAMED.findall((ROOT.parent / "docs" / "promises.md").read_text()):
        if path and path != "tests/":
            file = ROOT / path
            assert file.exists(), path
        if name:
            named += 1
            assert f"def {name}(" in file.read_text(), f"{file}: {name}"
    assert named > 50


@pytest.mark.parametrize(
    "message",
    [EnrollmentStatement, CallStatement, RevocationStatement],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_the_protocol_has_a_row_for_every_field_of_what_is_signed(message: type[Message]) -> None:
    """And the vectors fill every field of a statement or a call."""
    protocol = (ROOT.parent / "docs" / "protocol.md").read_text()
    vectors = "".join(path.read_text() for path in (ROOT.parent / "docs" / "vectors").glob("*.json"))
    for field in message.DESCRIPTOR.fields:
        assert f"| {field.number} | `{field.name}` |" in protocol
        assert f'"{field.name}"' in vectors or message is RevocationStatement, f"docs/vectors: {field.name}"


@pytest.mark.parametrize("document", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_and_function_that_a_guide_to_the_code_names_exists(document: str) -> None:
    """In a row of a table, functions of the last column stand in one of the row's files."""
    named = 0
    for line in (ROOT.parent / document).read_text().splitlines():
        files = [
            ROOT.parent / path
            for path in re.findall(r"`((?:keyark|rm_service|cm_service|drm_service)/[\w/]+\.py)`", line)
        ]
        for file in files:
            assert file.exists(), file
            named += 1
        if files and line.startswith("|"):
            code = "".join(file.read_text() for file in files)
            for name in re.findall(r"`([a-z_]+)`", line.replace("`...`", "")):
                assert re.search(rf"def {name}\(", code), f"{line}: {name}"
    assert named > 8


def test_the_guide_to_three_hosts_says_who_enrolls_at_first(deployment_template: Path) -> None:
    """As the file that `keyark-rm init` writes has it."""
    rules = tomllib.loads((deployment_template / "rm" / "rm.toml").read_text())["policy"]["rule"]
    (rule,) = (rule for rule in rules if rule["type"] == "CallerSubjects")
    guide = (ROOT.parent / "docs" / "deployment.md").read_text()
    steps = guide.partition("## On three hosts")[2].partition("\n## ")[0]
    (grant,) = rule["callers"]
    assert f"`{rule['name']}`" in steps
    assert f"`{grant['caller']}`" in steps
    assert "policy.md#cookbook" in steps


def snippets() -> list[tuple[str, str]]:
    """Every Python snippet of README, docs and the SDK's own documentation, each with where it stands."""
    texts = {document.name: document.read_text() for document in DOCUMENTS}
    texts["keyark.client"] = keyark.client.__doc__ or ""
    found = [
        (f"{name} {number}", text)
        for name, whole in texts.items()
        for number, text in enumerate(SNIPPET.findall(whole))
    ]
    assert len(found) >= 5
    return found


def test_every_snippet_is_typed(tmp_path: Path):
    """mypy takes each as a strict user's own program."""
    for name, text in snippets():
        (tmp_path / (re.sub(r"\W", "_", name) + ".py")).write_text(text)
    options = ("--strict", "--config-file=", f"--cache-dir={ROOT.parent / '.mypy_cache' / 'users'}")
    command = (sys.executable, "-m", "mypy", *options, *map(str, tmp_path.glob("*.py")))
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


async def test_every_snippet_of_the_sdk_runs(deployment: Deployment):
    """In their order, beside the deployment that they name; section 8 of protocol.md has a test of its own."""
    await lose_key(deployment)
    for name, text in snippets():
        if "keyark.client" not in text:
            assert name == "protocol.md 0"
            continue
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", text),
            cwd=deployment.folder.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b""), f"{name}: {errors.decode()}"
        assert printed


def commands(text: str) -> Iterator[str]:
    """The `keyark` commands in the blocks of code of a document, without the word keyark."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if found := COMMAND.search(line):
                yield found[1]


def check_command(words: str) -> None:
    """Fail unless the command exists and has the options that are named."""
    command: click.Command = main
    for word in shlex.split(words, comments=True):
        if word in ("|", ">", "<", "&&", ";", "&", "||"):
            return
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = [command.get_command(click.Context(command), name) for name in word.split("|")]
            assert None not in found, f"keyark {words}: there is no {word}"
            command = found[0] or command
        elif word.startswith("--"):
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            known |= {option for parameter in command.params for option in parameter.secondary_opts}
            assert word.partition("=")[0] in known, f"keyark {words}: there is no {word}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_command_of_a_document_exists(document: Path):
    for words in commands(document.read_text()):
        check_command(words)


@pytest.mark.parametrize("words", ["enrol --name A", "enroll --nam A", "keys shew", "keys list|shew"])
def test_a_command_that_does_not_exist_is_found(words: str):
    with pytest.raises(AssertionError):
        check_command(words)


def test_every_command_that_a_remedy_names_exists():
    for remedy in REMEDIES.values():
        for words in re.findall(r"`keyark ([^`]*)`", remedy):
            check_command(words)


def test_the_changelog_and_the_guide_to_installing_name_this_version():
    """In the form of keepachangelog.com: what is not released yet, then releases with their dates, newest first."""
    changelog = (ROOT.parent / "CHANGELOG.md").read_text()
    unreleased, *releases = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert unreleased == "Unreleased"
    assert releases[0].startswith(f"{keyark.__version__} - ")
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", release) for release in releases)
    parts = set(re.findall(r"^### (.*)$", changelog, re.MULTILINE))
    assert parts <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    named = re.findall(r"\b\d+\.\d+\.\d+(?=\.tar|-py3|`)", (ROOT.parent / "docs" / "install.md").read_text())
    assert set(named) == {keyark.__version__}


def test_the_index_of_decisions_has_each_with_its_title():
    folder = ROOT.parent / "docs" / "adr"
    index = (folder / "README.md").read_text()
    for record in sorted(folder.glob("0*.md")):
        title = record.read_text().splitlines()[0].removeprefix("# ")
        number, _, decision = title.partition(". ")
        assert record.name.startswith(number.rjust(4, "0"))
        assert f"| [{number}]({record.name}) | {decision} |" in index


LINK = re.compile(r"\]\(([^)\s]+)\)")
GUIDES = [
    *DOCUMENTS,
    *(ROOT.parent / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT.parent / "docs" / "adr").glob("*.md")),
]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", GUIDES, ids=lambda document: document.name)
def test_every_link_of_a_document_leads_somewhere(document: Path):
    for link in LINK.findall(document.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
