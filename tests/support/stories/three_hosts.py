"""Three hosts, an authority without a network, three agents and a person, who give the commands of the guides.

The guides are read as a reader does: a line `# on PLACE` says where the commands below it are given, `# copy` which
file is carried, `# stop` and `# start` what a supervisor does, and words in capitals are what earlier commands printed.
The newest copy of each file that a command names is brought to where it is given.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.support.running.hosts import Host, Network

DOCS = Path(__file__).parents[3] / "docs"
AGENTS = ["alice", "bob", "carol", "dave"]
PLACES = {
    "the authority's machine": ["authority"],
    "the DRM's host": ["drm"],
    "the CM's host": ["cm"],
    "the RM's host": ["rm"],
    "a person's machine": ["people"],
    "each agent's machine": ["alice", "bob", "carol"],
} | {f"{name}'s machine": [name] for name in AGENTS}
_ON = re.compile(f"# on ({'|'.join(PLACES)})")
_COPY = re.compile(r"# copy (\S+) from (.+?'s (?:host|machine)) to (.+?'s (?:host|machine))(?: as (\S+))?$")
_PROCESS = re.compile(r"# (stop|start) the (RM|CM|DRM)$")
_PRINTED = {
    "STORAGE_KEY": re.compile(r'(?:"storage_key_id": "|storage key  \d+  )([0-9a-f]{64}(?::\d+)?)'),
    "CEREMONY": re.compile(r"^([0-9a-f]{32})\b", re.MULTILINE),
    "SIZE": re.compile(r"log: ([0-9]+) entries make the tree"),
    "ROOT": re.compile(r"entries make the tree ([0-9a-f]{64})"),
    "CHANGE": re.compile(r"(?:newest change  |change of agents or storage keys: )(\w+)"),
}


def commands(page: str, heading: str) -> list[str]:
    """The lines of the blocks of commands below a heading; a line that ends with a backslash goes on."""
    section = (DOCS / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall("^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no commands below {heading}"
    return [line for line in "".join(blocks).replace("\\\n", " ").splitlines() if line]


def is_command(line: str) -> bool:
    """Whether a line of a guide is given, and not read."""
    return not line.startswith("#")


class ThreeHosts:
    """What stands on each machine, what runs there, and what was printed so far."""

    def __init__(self, folder: Path) -> None:
        self.network = Network(folder, ["rm", "cm", "drm", "people", *AGENTS], offline=["authority"])
        self.printed = dict[str, str]()
        self._running = dict[str, contextlib.ExitStack]()

    @property
    def hosts(self) -> dict[str, Host]:
        return self.network.hosts

    def follow(self, lines: list[str]) -> None:
        """Do what the lines of a guide say, in their order."""
        here: list[str] = []
        for line in lines:
            if found := _ON.match(line):
                here = PLACES[found[1]]
            elif found := _COPY.match(line):
                self._copy(found[1], PLACES[found[2]], PLACES[found[3]], found[4])
            elif found := _PROCESS.match(line):
                getattr(self, found[1])(found[2].lower())
            elif is_command(line):
                for name in here:
                    self.give(name, line)

    def give(self, name: str, line: str) -> None:
        """Give a command at a machine, with what was printed in place of the words in capitals."""
        host, line = self.hosts[name], self._filled(line, name)
        if line.startswith("keyark"):
            self._bring_what_is_named(host, line)
        if " serve " in line:
            self._serve(name, line)
        else:
            done = host.run(line)
            self._note(line, done.stdout + done.stderr)

    def start(self, role: str) -> None:
        self._serve(role, f"keyark-{role} serve {role}/{role}.toml")

    def stop(self, role: str) -> None:
        self._running.pop(role).close()

    def close(self) -> None:
        """Stop all services, and take the machines apart."""
        for role in ("rm", "cm", "drm"):
            if role in self._running:
                self.stop(role)
        self.network.close()

    def _serve(self, name: str, line: str) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.hosts[name].serving(line))
            self._running[name] = stack.pop_all()

    def _filled(self, line: str, name: str) -> str:
        for word, value in ({"NAME": name} | self.printed).items():
            line = re.sub(rf"\b{word}\b", value, line)
        return line

    def _copy(self, file: str, sources: list[str], targets: list[str], name: str | None) -> None:
        (source,) = sources
        for target in targets:
            self.hosts[target].bring(file, self.hosts[source], name)

    def _bring_what_is_named(self, host: Host, line: str) -> None:
        for file in _files(line):
            holders = [other for other in self.hosts.values() if (other.folder / file).is_file()]
            newest = max(holders, key=lambda holder: (holder.folder / file).stat().st_mtime_ns, default=host)
            if newest is not host:
                host.bring(file, newest)

    def _note(self, line: str, told: str) -> None:
        asked = re.search(r" init (\w+)| request \w+/(\w+)", line)
        fingerprints = re.findall(r"fingerprint[^\n]*?\b([0-9a-f]{64})\b", told)
        if asked and fingerprints:
            word = "FINGERPRINT" if asked[1] == "authority" else (asked[1] or asked[2]).upper()
            self.printed[word] = fingerprints[0]
        for word, pattern in _PRINTED.items():
            if found := pattern.findall(told):
                self.printed[word] = found[-1]


def _files(line: str) -> Iterator[str]:
    """The words of a command that may name files which it reads."""
    for before, word in pairwise(shlex.split(line)):
        if before not in {"--out", "--bundle"}:
            yield word.partition("=")[2] or word
