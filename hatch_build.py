"""Builds keyark/v1 and keyark/records from protos/, which are never committed, and puts protos into the wheel."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # `python hatch_build.py` needs the compiler only
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent
PACKAGES = ("keyark/v1", "keyark/records/v1")
SERVICES = ("registration", "certificates", "deployment", "archive", "recovery", "audit")
FOR_OTHER_LANGUAGES = ("keyark/v1", "google/rpc")
"""What of protos/ clients in other languages compile; the records of the stores are nobody else's."""


def generate(root: Path = ROOT) -> None:
    """Compile every .proto of keyark to messages, stubs and type stubs; needs grpcio-tools and mypy-protobuf."""
    with tempfile.TemporaryDirectory() as folder:
        messages = ["--python_out=.", "--mypy_out=quiet:.", _plugin(Path(folder), "protoc-gen-mypy", "main")]
        for package in PACKAGES:
            _compile(root, sorted((root / "protos" / package).glob("*.proto")), messages)
            for made in (root / package, (root / package).parent):
                if made.name != "keyark":
                    (made / "__init__.py").write_text('"""Generated from protos/; do not edit."""\n')
        stubs = ["--grpc_python_out=.", "--mypy_grpc_out=quiet:."]
        stubs.append(_plugin(Path(folder), "protoc-gen-mypy_grpc", "grpc"))
        _compile(root, [root / "protos/keyark/v1" / f"{name}.proto" for name in SERVICES], stubs)


def _plugin(folder: Path, name: str, function: str) -> str:
    """Return the option with which protoc finds a plugin of mypy-protobuf.

    Build environments put its command in different places; what this interpreter imports is the same everywhere.
    """
    command = folder / name
    code = f"import sys; from mypy_protobuf.main import {function}; sys.exit({function}())"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
    command.chmod(0o700)
    return f"--plugin={name}={command}"


def _compile(root: Path, files: list[Path], options: list[str]) -> None:
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", *options]
    names = [str(path.relative_to(root)) for path in files]
    subprocess.run([*protoc, *names], cwd=root, check=True)  # noqa: S603 — fixed arguments


class ProtoBuildHook(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """Generates the code before hatchling collects the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and list the results: git-ignored files otherwise stay out of the wheel."""
        generate(Path(self.root))
        build_data["artifacts"] += [f"{package}/*" for package in (*PACKAGES, "keyark/records")]
        if version != "editable":  # a checkout has them in protos/
            build_data["force_include"] |= {f"protos/{p}": f"keyark/protos/{p}" for p in FOR_OTHER_LANGUAGES}


if __name__ == "__main__":
    generate()
