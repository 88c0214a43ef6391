"""A client in Node, from the protos and docs/protocol.md, enrolls and believes nothing that it did not verify."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from keyark.client import get_proven_key, list_certificates, open_session
from tests.support.running.deployment import Deployment
from tests.support.stories.attacks import forge_identity

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "node"


@pytest.fixture(scope="module")
def program() -> Path:
    """The client beside its packages, which `make` installs from the lock file where they are missing."""
    subprocess.run(["make", "-s", "build/node/installed"], cwd=ROOT, check=True, timeout=300)
    return BUILT / "enroll.mjs"


async def enroll(program: Path, deployment: Deployment, out: Path) -> tuple[int, str, str]:
    home = deployment.home()
    words = (
        ROOT / "protos",
        home.folder,
        home.config.rm,
        "client/enroller",
        "Zoë Ünal",
        "zoe@example.org",
        out,
    )
    process = await asyncio.create_subprocess_exec(
        *("node", program, *map(str, words)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, errors = await process.communicate()
    return process.returncode, printed.decode(), errors.decode()


async def issued(deployment: Deployment) -> list[str]:
    async with open_session(deployment.home(), "cm", identity="officer/officer") as officer:
        return [certificate.serial.hex() async for certificate in list_certificates(officer)]


async def test_a_client_in_node_enrolls_and_the_archive_has_its_key(
    program: Path, deployment: Deployment, tmp_path: Path
) -> None:
    code, printed, errors = await enroll(program, deployment, tmp_path / "zoe")
    assert (code, errors) == (0, "")
    told = json.loads(printed)
    assert sorted(int(serial, 16) for serial in told["serials"]) == sorted(
        int(serial, 16) for serial in await issued(deployment)
    )
    async with open_session(deployment.home(), "drm", identity="agent/alice") as agent:
        proven = await get_proven_key(agent, bytes.fromhex(told["key_id"]))
    assert proven.receipt.details.email == "zoe@example.org"
    assert {file.name for file in (tmp_path / "zoe").iterdir()} >= {
        "receipt.tlog-proof",
        "encryption-key.pem",
    }


async def test_a_client_in_node_sends_nothing_for_another_transport_key(
    program: Path, deployment: Deployment, tmp_path: Path
) -> None:
    """P5: the RM offers a key that is not the deployment's, as the client's own transport.pem tells."""
    home = deployment.home()
    other = forge_identity(home.folder, uris=["spiffe://example.org/drm/transport"], seconds=3600)
    shutil.copy(home.config.transport, tmp_path / "kept.pem")
    home.config.transport.write_bytes(other.certificate)
    code, _, errors = await enroll(program, deployment, tmp_path / "zoe")
    assert (code, errors) == (1, "refused: not the transport key in force\n")
    assert not (tmp_path / "zoe").exists()
    assert await issued(deployment) == []
