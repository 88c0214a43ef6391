"""`make load`: `keyark load` on a fresh deployment; further words are handed on to it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import deployments
from keyark.load.planning.suites import EC

KEYS: Final = Path("build/load-keys")
OUT: Final = Path("build/load")


async def run(folder: Path, *arguments: str) -> int:
    """Run the deployment and load it; returns the exit code of `keyark load`."""
    async with deployments.running(folder):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "keyark.cli", "load", "--home", str(folder),
            "--keys", str(KEYS), "--out", str(OUT), *arguments,
        )  # fmt: skip
        return await process.wait()


def main() -> int:
    """Make a deployment, load it, delete it."""
    KEYS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="keyark-load-", dir=KEYS.parent) as folder:
        return asyncio.run(run(deployments.make(Path(folder) / "deployment", EC), *sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
