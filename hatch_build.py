"""Builds keyark/v1 and keyark/records from protos/; the results are never committed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # `python hatch_build.py` needs the compiler only
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent
PACKAGES = ("keyark/v1", "keyark/records/v1")
SERVICES = ("registration", "certificates", "archive", "recovery", "audit")


def generate(root: Path = ROOT) -> None:
    """Compile every .proto of keyark to messages, stubs and type stubs; needs grpcio-tools."""
    plugin = shutil.which("protoc-gen-mypy", path=str(Path(sys.executable).parent)) or "protoc-gen-mypy"
    plugin_grpc = f"{plugin}_grpc"
    common = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", "--python_out=.", "--mypy_out=quiet:."]
    common.append(f"--plugin=protoc-gen-mypy={plugin}")
    for package in PACKAGES:
        files = sorted(str(p.relative_to(root)) for p in (root / "protos" / package).glob("*.proto"))
        subprocess.run([*common, *files], cwd=root, check=True)  # noqa: S603 — fixed arguments
        for folder in (root / package, (root / package).parent):
            if folder.name != "keyark":
                (folder / "__init__.py").write_text('"""Generated from protos/; do not edit."""\n')
    services = [f"protos/keyark/v1/{name}.proto" for name in SERVICES]
    grpc_arguments = [
        "--grpc_python_out=.",
        "--mypy_grpc_out=quiet:.",
        f"--plugin=protoc-gen-mypy_grpc={plugin_grpc}",
    ]
    subprocess.run(  # noqa: S603 — fixed arguments
        [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", *grpc_arguments, *services],
        cwd=root,
        check=True,
    )


class ProtoBuildHook(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """Generates the code before hatchling collects the files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and list the results: git-ignored files otherwise stay out of the wheel."""
        generate(Path(self.root))
        build_data["artifacts"] += [f"{package}/*" for package in (*PACKAGES, "keyark/records")]


if __name__ == "__main__":
    generate()
