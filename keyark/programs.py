"""How keyark's programs start: their code comes from the installation and from nowhere else (P10).

`python -m` searches the working folder first, and ``PYTHONPATH`` and the user's own site-packages can name any folder.
Whoever may write there would run code in a service. So programs are started isolated (``python -I``), long-running ones
work in ``/``, and the commands `keyark`, `keyark-rm`, `keyark-cm` and `keyark-drm` isolate themselves.
Nothing may be imported here that is not needed for that.
"""

from __future__ import annotations

import importlib
import os
import site
import sys
from pathlib import Path
from typing import Final, NoReturn

WORKING_FOLDER: Final = "/"
"""Where programs that run for long work: nobody but root writes there, and no file system is held busy."""

_ROOT: Final = Path(__file__).resolve().parent.parent
_NAMING_CODE: Final = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONUSERBASE",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSTARTUP",
    "PYTHONINSPECT",
    "PYTHONBREAKPOINT",
    "PYTHONEXECUTABLE",
)
_USAGE: Final = 2
_STOPPED: Final = 130


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of the installation in a process of its own, isolated."""
    return [sys.executable, "-I", "-m", module, *arguments]


def without_python_settings() -> dict[str, str]:
    """Return the environment for a command that is not ours, without what tells Python where to find code."""
    return {name: value for name, value in os.environ.items() if name not in _NAMING_CODE}


def isolate(module: str) -> None:
    """Start this program anew, isolated, where its code could come from elsewhere; return where it cannot.

    Call it first in ``__main__``. It ends the process with a sentence where `python -m` searched a foreign working
    folder, for what was imported from there has already run.
    """
    if sys.flags.isolated:
        return
    if _searches_working_folder() and Path(sys.path[0]).resolve() != _ROOT:
        _refuse(
            f"`python -m {module}` imports from the working folder. "
            f"Run `{COMMANDS[module]}` or `python -I -m {module}`."
        )
    if site.ENABLE_USER_SITE and _ROOT.is_relative_to(Path(site.getusersitepackages()).resolve()):
        _refuse(
            "keyark is installed for one user only. Install it in a virtual environment or for the system."
        )
    if site.ENABLE_USER_SITE or any(name in os.environ for name in _NAMING_CODE):
        os.execv(sys.executable, python_command(module, *sys.argv[1:]))  # noqa: S606 — this very interpreter


def _searches_working_folder() -> bool:
    """Whether this is `python -m` without ``-P``: of a script, ``sys.path`` begins with the script's own folder."""
    return not sys.flags.safe_path and sys.modules["__main__"].__spec__ is not None


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(message + "\n")
    sys.exit(_USAGE)


def keyark() -> None:
    """Run the command `keyark`, hardened as the services are, for it opens its caller's identity key.

    Here and not in the command's own code, because whoever embeds that, or the SDK, decides on its process itself.
    """
    isolate("keyark.cli")
    try:
        importlib.import_module("keyark.custody.harden").disable_core_dumps()
        _prepare()
        importlib.import_module("keyark.cli.main").main()
    except KeyboardInterrupt:  # before the command began
        sys.exit(_STOPPED)


def start_service(module: str) -> None:
    """Isolate a service's program, and look for no cycles until its modules are imported; call it in ``__main__``."""
    isolate(module)
    importlib.import_module("keyark.collection").collect_later()


def prepare_service() -> None:
    """Make the process ready for a service, with TLS 1.3 only; call it in ``__main__`` before the rest is imported.

    It ends the process with a sentence where what services need is not installed.
    """
    extras = importlib.import_module("keyark.extras")
    try:
        extras.need_extra("server")
    except extras.MissingExtraError as error:
        _refuse(error.message)
    _prepare()


def _prepare() -> None:
    """Make the settings of the whole process that the SDK leaves to the program that it is part of."""
    importlib.import_module("keyark.rpc.tls").rule_out_tls_1_2()
    importlib.import_module("keyark.keys.library").ignore_library_warnings()


def rm() -> int:
    """Run the command `keyark-rm`; returns the exit code."""
    return _service("rm_service")


def cm() -> int:
    """Run the command `keyark-cm`; returns the exit code."""
    return _service("cm_service")


def drm() -> int:
    """Run the command `keyark-drm`; returns the exit code."""
    return _service("drm_service")


def _service(module: str) -> int:
    start_service(module)
    code: int = importlib.import_module(f"{module}.__main__").PROGRAM.main()
    return code


COMMANDS: Final = {
    "keyark.cli": "keyark",
    "rm_service": "keyark-rm",
    "cm_service": "keyark-cm",
    "drm_service": "keyark-drm",
}
