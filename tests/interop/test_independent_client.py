"""Guards docs/protocol.md: a client that follows it, and takes nothing else of keyark, enrolls and verifies."""

import ast
import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from keyark.keys.key_types import KeyType
from tests.support.running.deployment import copy_deployment, make_deployment, running

CLIENT = Path(__file__).with_name("independent_client.py")
ROOT = CLIENT.parents[2]
PROTOCOL = ROOT / "docs" / "protocol.md"
PERMITTED = {"cryptography", "grpc", "google.protobuf", "google.rpc", "keyark.v1"}


async def run(*command, cwd=ROOT):
    """Run a program while this event loop goes on serving; returns its code and what it printed."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complaint = await process.communicate()
    return process.returncode, printed.decode(), complaint.decode()


async def enroll(deployment, *options, email="alice@example.org"):
    rm = deployment.home().config.rm
    code, printed, complaint = await run(
        sys.executable,
        CLIENT,
        "--rm",
        rm,
        "--home",
        deployment.folder,
        "--name",
        "Zoë Ünal",
        "--email",
        email,
        *options,
    )
    assert printed, complaint
    return code, json.loads(printed)


@pytest_asyncio.fixture
async def rsa_deployment(tmp_path):
    folder = make_deployment(tmp_path / "template", transport_key_type=KeyType.RSA_3072)
    async with running(copy_deployment(folder, tmp_path / "deployment")) as deployment:
        yield deployment


def imported_modules():
    for node in ast.walk(ast.parse(CLIENT.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield node.module


def test_it_imports_nothing_else_of_keyark():
    others = {m for m in imported_modules() if m.partition(".")[0] not in sys.stdlib_module_names}
    strangers = {m for m in others if not any(m == p or m.startswith(f"{p}.") for p in PERMITTED)}
    assert "keyark.v1" in others
    assert not strangers
    assert not re.search(r"import_module|__import__|exec\(|eval\(", CLIENT.read_text())


@pytest.mark.parametrize(
    ("delivery", "states"),
    [
        ("along", ["ENROLLMENT_STATE_ISSUED"]),
        ("when-asked", ["ENROLLMENT_STATE_AWAITING_PRIVATE_KEY", "ENROLLMENT_STATE_ISSUED"]),
    ],
)
async def test_it_enrolls(deployment, delivery, states):
    code, facts = await enroll(deployment, "--delivery", delivery)
    assert code == 0
    assert facts["states"] == states
    assert facts["signing_serial"] != facts["encryption_serial"]


async def test_it_enrolls_with_every_kind_of_key(deployment):
    kinds = (
        ("RSA_2048", "RSA_2048"),
        ("EC_P384", "EC_P521"),
        ("ED25519", "X25519"),
        ("ML_DSA_65", "ML_KEM_768"),
    )
    for signing, encryption in kinds:
        email = f"{signing.lower()}@example.org"
        code, facts = await enroll(deployment, "--signing", signing, "--encryption", encryption, email=email)
        assert code == 0, facts


async def test_it_wraps_to_an_rsa_transport_key(rsa_deployment):
    code, facts = await enroll(rsa_deployment)
    assert code == 0, facts


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--profile", "nobody"), "UNKNOWN_PROFILE"),
        (("--name", "Trailing space "), "INVALID_INPUT"),
        (("--identity", "officer/officer"), "PERMISSION_DENIED"),
    ],
)
async def test_it_is_told_why_it_is_refused(deployment, options, reason):
    code, facts = await enroll(deployment, *options)
    assert code == 1
    assert facts["error"]["reason"] == reason


async def test_the_documented_offline_check_verifies_its_receipt(deployment, tmp_path):
    """The script in section 8 of the document, as it stands there, with python and openssl only."""
    code, facts = await enroll(deployment, "--out", tmp_path)
    assert code == 0, facts
    script = tmp_path / "verify_receipt.py"
    script.write_text(re.search(r"```python\n(.*?)```", PROTOCOL.read_text(), re.DOTALL)[1])
    transport = deployment.folder / "transport.pem"
    code, _, complaint = await run(
        "openssl", "verify", "-CAfile", deployment.folder / "trust-anchor.pem", transport
    )
    assert code == 0, complaint
    arguments = [sys.executable, "-I", script, "receipt.tlog-proof", transport, "example.org/drm"]
    code, printed, complaint = await run(*arguments, "statement.bin", cwd=tmp_path)
    assert code == 0, complaint
    assert f"index {facts['log_index']}" in printed
    assert "alice@example.org" in printed
    (tmp_path / "other.bin").write_bytes((tmp_path / "statement.bin").read_bytes() + b"\0")
    code, _, _ = await run(*arguments, "other.bin", cwd=tmp_path)
    assert code != 0
    receipt = (tmp_path / "receipt.tlog-proof").read_text()
    (tmp_path / "receipt.tlog-proof").write_text(
        receipt.replace("example.org/drm\n", "example.org/drm\n1", 1)
    )
    code, _, _ = await run(*arguments, "statement.bin", cwd=tmp_path)
    assert code != 0
