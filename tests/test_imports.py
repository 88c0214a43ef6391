"""What starts often starts quickly: programs import what they need and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

import keyark.client


def imported_with(module: str) -> set[str]:
    """Return the names of all modules that come along with one, in a process of its own."""
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-I", "-c", code], text=True, cwd="/").split())


@pytest.mark.parametrize(
    "module",
    [
        "cm_service.public.crl_worker",
        "cm_service.public.ocsp_worker",
        "cm_service.issuance.signing_worker",
        "drm_service.ceremonies.worker",
        "drm_service.workers.key_worker",
        "keyark.workers.__main__",
    ],
)
def test_a_worker_imports_neither_network_nor_configuration(module: str) -> None:
    assert not imported_with(module) & {"cel", "cel.cli", "grpc", "pydantic", "lmdb", "h11", "uvloop"}


@pytest.mark.parametrize("module", ["rm_service.__main__", "cm_service.__main__", "drm_service.__main__"])
def test_a_service_imports_no_toolkit_for_terminals(module: str) -> None:
    assert not imported_with(module) & {"prompt_toolkit", "pygments", "typer", "rich", "click"}


def test_a_command_imports_no_part_of_the_sdk_that_it_does_not_use() -> None:
    recovery = {"keyark.client.public", "keyark.client.recovery.client", "keyark.client.blocking"}
    assert not imported_with("keyark.cli.main") & recovery
    assert not imported_with("keyark.cli.operators.deployment") & recovery
    assert recovery < imported_with("keyark.client; keyark.client.KeyType")


def test_the_sdk_tells_which_names_it_has_and_refuses_others() -> None:
    assert set(keyark.client.__all__) < set(dir(keyark.client))
    assert keyark.client.__all__ == keyark.client.public.__all__
    with pytest.raises(AttributeError, match=r"'keyark\.client' has no attribute 'KeyTipe'"):
        _ = keyark.client.KeyTipe
    with pytest.raises(ImportError, match="KeyTipe"):
        from keyark.client import KeyTipe  # noqa: F401, PLC0415


def test_the_shell_of_the_cel_library_is_there_for_whoever_asks_for_it() -> None:
    assert "prompt_toolkit" in imported_with("keyark.policy.cel_library, cel.cli")


ALONE = """
import importlib, os, sys
import click, cryptography.x509, grpc, google.protobuf.json_format, pydantic
from keyark.cli.main import COMMANDS

for module in sorted({module for module, _ in COMMANDS.values()}):
    process = os.fork()
    if not process:
        importlib.import_module(module)
        os._exit(0)
    if os.waitpid(process, 0)[1]:
        sys.exit(f"{module} cannot be imported alone")
"""


def test_every_command_imports_alone() -> None:
    """Tests fork most commands from a process that has imported all of them, which would hide a missing import."""
    subprocess.run([sys.executable, "-I", "-c", ALONE], check=True, cwd="/")
