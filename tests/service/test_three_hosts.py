"""What programs tell the operator of a service that is alone on its host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyark.programs import python_command
from tests.support.running.processes import keyark


def program(role: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = python_command(f"{role}_service", *map(str, words))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def share_keys(deployment_template: Path) -> list[str]:
    agents = deployment_template / "identities" / "agent"
    return [f"--agent={agents / name / 'share-key.json'}" for name in ("alice", "bob", "carol")]


def test_init_says_which_requests_to_have_signed(
    deployment_template: Path, tmp_path: Path, share_keys: list[str]
) -> None:
    anchor = deployment_template / "trust-anchor.pem"
    common = ("--trust-domain=example.org", "--listen=127.0.0.1:0", "--trust-anchor", anchor, "--quorum=2")
    trusted = (
        "--agent=agent/alice",
        "--agent=agent/bob",
        "--agent=agent/carol",
        f"--storage-key-id={'ab' * 32}",
    )
    for role, words, requests in (
        ("rm", (*trusted, "--cm=x:1", "--drm=x:2"), ["identity"]),
        ("cm", (*trusted, "--ca-name=CA"), ["ca", "identity"]),
        ("drm", share_keys, ["identity", "transport-keys/1/transport"]),
    ):
        folder = tmp_path / role
        told = program(role, "init", folder, *common, *words).stderr.splitlines()
        assert told[:-2] == [
            f"have {folder / name}.csr signed, and save the certificate as {folder / name}.pem"
            for name in requests
        ]


@pytest.mark.parametrize(("role", "has_row_keys"), [("rm", False), ("cm", False), ("drm", True)])
def test_the_drm_alone_speaks_of_row_keys_in_backups(role: str, has_row_keys: bool) -> None:
    told = " ".join(program(role, "--help").stdout.split())
    assert ("row keys" in told) is has_row_keys


@pytest.mark.parametrize("words", [("list",), ("rotate",), ("renew",), ("retire", "1")])
def test_transport_key_commands_without_the_drm_name_its_own(tmp_path: Path, words: tuple[str, ...]) -> None:
    told = keyark("transport-key", *words, "--home", tmp_path, code=1).stderr
    assert "keyark-drm transport-key list" in told
    assert "DRM_ELSEWHERE" in told
    assert not list(tmp_path.iterdir())
