"""The calls of docs/clients.md at the command line, as they stand there."""

from __future__ import annotations

import asyncio
import base64
import json
import shlex
import sys
from pathlib import Path

from tests.support.running.deployment import Deployment

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "clients.md").read_text()
IN_A_NAMESPACE = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


async def run_as_written(deployment: Deployment, hosts: Path, *, profile: str) -> tuple[int, dict]:
    """Run `buf curl` as the guide has it, where rm.example.org leads to the RM of a deployment."""
    port = deployment.home().config.rm.rpartition(":")[2]
    (line,) = [line for line in GUIDE.splitlines() if line.startswith("    buf curl ")]
    line = line.replace("deployment/", f"{deployment.folder}/").replace(":7710", f":{port}")
    _, *words = shlex.split(line.replace('"user"', f'"{profile}"'))
    hosts.write_text("127.0.0.1 rm.example.org\n")
    command = ("unshare", "--map-root-user", "--mount", "sh", "-ec", IN_A_NAMESPACE, "sh", hosts)
    process = await asyncio.create_subprocess_exec(
        *map(str, (*command, Path(sys.executable).with_name("buf"), *words)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await process.communicate()
    return process.returncode, json.loads(printed or errors)


async def test_buf_curl_fetches_a_form_and_shows_the_reason_of_a_refusal(
    deployment: Deployment, tmp_path: Path
) -> None:
    code, answer = await run_as_written(deployment, tmp_path / "hosts", profile="user")
    assert (code, answer["form"]["trustDomain"]) == (0, "example.org")
    code, answer = await run_as_written(deployment, tmp_path / "hosts", profile="nobody")
    assert code != 0
    assert answer["code"] == "not_found"
    info = next(detail for detail in answer["details"] if detail["type"] == "google.rpc.ErrorInfo")
    assert b"UNKNOWN_PROFILE" in base64.b64decode(info["value"] + "==")
