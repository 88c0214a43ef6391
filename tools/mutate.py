"""Changes one module in many small ways and lists the changes that its tests do not notice.

    make mutate MODULE=drm_service/archival/linking.py
    make mutate MODULE=keyark/rpc/serving/guard.py TESTS="tests/rpc/test_guard.py tests/rpc/test_budgets.py"
    make mutate MODULE=drm_service/archival/linking.py MUTATE=--survivors  # only what survived the last time

mutmut works on copies below build/mutate; the tree stays as it is. It forks from a server that has run no test, for
gRPC does not survive a fork. A change that hangs the tests counts as noticed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("keyark", "rm_service", "cm_service", "drm_service")
SETTINGS = """[mutmut]
source_paths=
    {packages}
only_mutate={module}
pytest_add_cli_args_test_selection=
    {tests}
process_isolation=forkserver
use_git_change_detection=false
track_dependencies=false
"""
MUTMUT = [sys.executable, "-m", "mutmut"]


def main() -> None:
    """Print what survived."""
    parser = argparse.ArgumentParser(description="Find changes of a module that its tests do not notice.")
    parser.add_argument("module", help="for example drm_service/archival/linking.py")
    parser.add_argument(
        "tests", nargs="*", help="files or folders; those that mirror or import the module otherwise"
    )
    parser.add_argument("--survivors", action="store_true", help="try only what survived the last time")
    asked = parser.parse_args()
    module = Path(asked.module)
    folder = ROOT / "build" / "mutate" / asked.module.removesuffix(".py").replace("/", ".")
    kept = folder.with_suffix(folder.suffix + ".survivors")
    names = kept.read_text().split() if asked.survivors else []
    if asked.survivors and not names:
        print("Nothing survived the last time.")
        return
    prepare(folder, module, asked.tests or tests_of(module))
    subprocess.run([*MUTMUT, "run", "--max-children", "1", *names], cwd=folder, check=True)
    survived = survivors(folder, names)
    kept.write_text("\n".join(survived))
    for name in survived:
        print(difference(folder, name))
    print(f"{len(survived)} changes of {module} survived.")


def tests_of(module: Path) -> list[str]:
    """Return the folder of tests that mirrors a module's package, or else the files of tests that import the module.

    Ends the program where there is neither.
    """
    package = module.parts[1] if module.parts[0] == "keyark" else module.parts[0].removesuffix("_service")
    if (ROOT / "tests" / package).is_dir():
        return [f"tests/{package}"]
    dotted = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [str(path.relative_to(ROOT)) for path in files if f"from {dotted} import " in path.read_text()]
    return found or sys.exit(f"No test imports {module}; name the files that use it: TESTS=...")


def prepare(folder: Path, module: Path, tests: list[str]) -> None:
    """Make the folder that mutmut copies from, without what it knew before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (*PACKAGES, "tests", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    packages, selected = ("\n    ".join(names) for names in (PACKAGES, tests))
    settings = SETTINGS.format(packages=packages, module=module, tests=selected)
    (folder / "setup.cfg").write_text(settings)


def survivors(folder: Path, names: list[str]) -> list[str]:
    """Return the names of the changes that no test noticed, of those that were tried."""
    told = output(folder, "results").splitlines()
    found = [line.split(":")[0].strip() for line in told if line.endswith((": survived", ": no tests"))]
    return [name for name in found if not names or name in names]


def difference(folder: Path, name: str) -> str:
    """Return a change as a diff, without the lines that name the copies."""
    lines = output(folder, "show", name).splitlines()
    changed = [line for line in lines if line.startswith(("-", "+")) and line[:3] not in ("---", "+++")]
    return "\n".join([name, *changed, ""])


def output(folder: Path, *words: str) -> str:
    """Return what a command of mutmut prints."""
    return subprocess.run([*MUTMUT, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
