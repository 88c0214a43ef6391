"""`keyark-rm|cm|drm init|serve|reload|check|backup`: what the three programs have in common."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import uvloop

from keyark.collection import set_modules_aside, tune_garbage_collection
from keyark.config import Config, load_config
from keyark.custody.harden import disable_core_dumps
from keyark.errors import KeyarkError
from keyark.errors.commands import StoppedError, SystemRefusalError, UsageError
from keyark.files import check_trusted_file
from keyark.folders import filling
from keyark.keys.reencryption import begin_encrypted
from keyark.meters import Meters
from keyark.policy.config import describe_policy
from keyark.programs import WORKING_FOLDER
from keyark.service.checks.live_policy import LivePolicy, policy_of
from keyark.service.control import Command, Commands, answering, ask
from keyark.service.program.answers import REQUEST, install_answer, write_host_request
from keyark.service.program.initialization import check_anchor
from keyark.service.program.output import CommandParser, answer, answer_lines, tell_error, wants_json
from keyark.service.program.parent import end_with_parent
from keyark.store import row_keys_beside
from keyark.text.terminal import describe_refusal, escaped_streams, log_to_stderr, print_line

C = TypeVar("C", bound=Config)
Adjust = Callable[[C, argparse.Namespace], C]

logger = logging.getLogger(__name__)

EXIT_CODES: Final = {UsageError: 2, StoppedError: 130}
"""Of errors other than those that end with 1."""


class Running(Protocol):
    """A service that takes calls."""

    @property
    def ready_line(self) -> str:
        """What to print: "rm ready at 127.0.0.1:7710 as spiffe://example.org/rm"."""

    @property
    def meters(self) -> Meters:
        """What it counts."""

    @property
    def policy(self) -> LivePolicy:
        """The policy in force."""

    async def reload(self) -> list[str]:
        """Read again what can be read again and replace all workers; returns a line for each thing done."""

    @property
    def commands(self) -> Mapping[str, Command]:
        """What else can be asked of it while it runs."""


def nothing_more(_: Any) -> None:
    """The further commands of a program that has none."""


@dataclass(frozen=True, kw_only=True)
class Program(Generic[C]):
    """One service's program: its role ("rm"), its configuration, and what its commands do.

    ``init`` fills the folder of its arguments, which is there, and empty; it returns what programs read of it.

    ``adjust`` puts what `serve` was asked for by ``add_serve_arguments`` above the configuration file.
    """

    role: str
    config: type[C]
    run: Callable[[C], AbstractAsyncContextManager[Running]]
    check: Callable[[C], Sequence[str]]
    backup: Callable[[C, Path], None]
    add_init_arguments: Callable[[argparse.ArgumentParser], None]
    init: Callable[[argparse.Namespace], Mapping[str, str]]
    store_folder: Callable[[C], Path]
    add_commands: Callable[[Any], None] = nothing_more
    add_serve_arguments: Callable[[argparse.ArgumentParser], None] = nothing_more
    adjust: Adjust[C] | None = None

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run one command; returns the exit code of the process."""
        set_modules_aside()
        disable_core_dumps()
        with escaped_streams() as streams:
            log_to_stderr(f"{self.role} %(levelname)s %(name)s: %(message)s")
            words = sys.argv[1:] if arguments is None else arguments
            try:
                parsed = self.parser().parse_args(words)
                return streams.exit_code(int(parsed.command(parsed) or 0))
            except KeyarkError as error:
                return self._fail(error, words)
            except OSError as error:
                return self._fail(SystemRefusalError(describe_refusal(error)), words)
            except KeyboardInterrupt:
                return self._fail(StoppedError.before_the_end(), words)

    def _fail(self, error: KeyarkError, words: Sequence[str]) -> int:
        """Tell an error, and return the exit code that stands for it."""
        tell_error(self.role, error, as_json=wants_json(words))
        return EXIT_CODES.get(type(error), 1)

    def parser(self) -> CommandParser:
        """Return the parser of all commands."""
        parser = CommandParser(prog=f"keyark-{self.role}")
        commands = parser.add_subparsers(required=True)
        init = commands.add_parser(
            "init", help="make this service's keys, certificate requests and configuration"
        )
        init.add_argument("folder", type=Path, help="a folder that is empty or does not exist")
        self.add_init_arguments(init)
        init.set_defaults(command=self._init)
        row_keys = ", and of its row keys beside it" if self.role == "drm" else ""  # RM and CM keep no tokens
        for name, command, text in (
            (
                "serve",
                self._serve,
                "run the service until SIGTERM or SIGINT, then finish open calls; SIGHUP reloads",
            ),
            ("reload", self._reload, "have the running service read its files again and replace all workers"),
            ("policy", self._policy, "check the policy in the file, and show its rules by stage"),
            (
                "policy-reload",
                self._policy_reload,
                "have the running service use the policy in its file",
            ),
            ("check", self._check, "check configuration, keys, store and log"),
            ("backup", self._backup, f"write a consistent copy of the store{row_keys}"),
        ):
            sub = commands.add_parser(name, help=text)
            sub.add_argument("config", type=_absolute, help=f"{self.role}.toml")
            sub.set_defaults(command=command)
            if name == "serve":
                sub.add_argument(
                    "--parent", type=int, help="end when this process has ended, which started the service"
                )
                sub.add_argument(
                    "--answer",
                    type=_absolute,
                    help="the file from `keyark authority answer`, used if the service has no identity yet",
                )
                self.add_serve_arguments(sub)
            if name == "backup":
                sub.add_argument("target", type=Path, help="a folder that does not exist")
        self.add_commands(commands)
        return parser

    def _init(self, parsed: argparse.Namespace) -> None:
        believed = check_anchor(parsed.trust_anchor, parsed.fingerprint)
        with filling(parsed.folder):
            if parsed.key_password is not None:
                begin_encrypted(parsed.folder, parsed.key_password)
            facts = self.init(parsed)
            asked = write_host_request(parsed.folder, self.role)
        requests = sorted(parsed.folder.rglob("*.csr"))
        self._tell_made(parsed, facts, requests=requests, asked=asked, believed=believed)

    def _tell_made(
        self,
        parsed: argparse.Namespace,
        facts: Mapping[str, str],
        *,
        requests: Sequence[Path],
        asked: str,
        believed: str,
    ) -> None:
        """Say aside what comes next; on standard output what programs read."""
        for request in requests:
            print_line(
                f"have {request} signed, and save the certificate as {request.with_suffix('.pem')}",
                sys.stderr,
            )
        print_line(
            f"or all at once: send {parsed.folder / REQUEST} (fingerprint {asked}) to the authority, and start with "
            f"keyark-{self.role} serve {parsed.folder / self.role}.toml --answer FILE",
            sys.stderr,
        )
        print_line(
            f"trusts the internal CA with the fingerprint {believed}: compare it with what the "
            "authority's operator told you",
            sys.stderr,
        )
        made = {
            "requests": [str(request) for request in requests],
            "request": str(parsed.folder / REQUEST),
            "fingerprint": asked,
            "internal_ca_fingerprint": believed,
        }
        if parsed.as_json:
            answer(parsed, {**facts, **made})
        elif facts:
            answer(parsed, facts)

    def _serve(self, parsed: argparse.Namespace) -> None:
        check_trusted_file(parsed.config)
        if parsed.answer is not None:
            for path in install_answer(parsed.config.parent, self.role, parsed.answer):
                logger.info("installed %s from the authority's answer", path)
        config = load_config(parsed.config, self.config)
        config = self.adjust(config, parsed) if self.adjust else config
        if parsed.parent is not None:
            end_with_parent(parsed.parent)
        os.chdir(WORKING_FOLDER)
        uvloop.run(self._until_signalled(config))

    async def _until_signalled(self, config: C) -> None:
        stopping = asyncio.Event()
        hung_up = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, hung_up.set)  # unhandled, one during the start would end it
        async with self.run(config) as running:
            loop.add_signal_handler(signal.SIGUSR1, running.meters.write)
            running.meters.write()

            async def reload(_: Sequence[str]) -> list[str]:
                return await running.reload()

            commands = Commands({**running.commands, "policy": running.policy.command, "reload": reload})
            async with answering(self.store_folder(config), commands):
                reloading = asyncio.create_task(_reload_when(hung_up, commands))
                tune_garbage_collection()
                print(running.ready_line, flush=True)
                await stopping.wait()
                reloading.cancel()
        running.meters.remove()

    def _reload(self, parsed: argparse.Namespace) -> None:
        self._answer(parsed, ask(self.store_folder(load_config(parsed.config, self.config)), "reload"))

    def _policy(self, parsed: argparse.Namespace) -> None:
        config = load_config(parsed.config, self.config)
        self._answer(parsed, describe_policy(self.role, policy_of(config)))

    def _policy_reload(self, parsed: argparse.Namespace) -> None:
        self._answer(parsed, ask(self.store_folder(load_config(parsed.config, self.config)), "policy"))

    def _check(self, parsed: argparse.Namespace) -> None:
        self._answer(parsed, self.check(load_config(parsed.config, self.config)))

    def _backup(self, parsed: argparse.Namespace) -> None:
        self.backup(load_config(parsed.config, self.config), parsed.target)
        facts, lines = {"store": str(parsed.target)}, [f"store: {parsed.target}"]
        if (row_keys := row_keys_beside(parsed.target)).exists():
            facts["row_keys"] = str(row_keys)
            lines.append(
                f"row keys: {row_keys}: keep them apart from the copy, and destroy old ones after a change of "
                "agents"
            )
        answer(parsed, facts, lines)

    def _answer(self, parsed: argparse.Namespace, lines: Sequence[str]) -> None:
        answer_lines(parsed, self.role, lines)


def _absolute(path: str) -> Path:
    """Return where a file is, also once the service works in another folder."""
    return Path(path).absolute()


async def _reload_when(hung_up: asyncio.Event, commands: Commands) -> None:
    """Reload at every SIGHUP; nobody waits for the answer, so it goes to the log."""
    while True:
        await hung_up.wait()
        hung_up.clear()
        try:
            await commands.carry_out(["reload"])
        except KeyarkError as error:
            logger.error("reloading failed: %s (%s)", error.message, error.reason)  # noqa: TRY400 — typed
