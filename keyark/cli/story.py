"""How the demo tells what happens, keeps its facts, and lets OpenSSL judge."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from keyark.errors import KeyarkError, Kind


class DemoFailedError(KeyarkError):
    """The story did not go as it should."""

    reason = "DEMO_FAILED"
    kind = Kind.INTERNAL


@dataclass
class Story:
    """Tells each step, and keeps its facts."""

    console: Console
    facts: dict[str, Any] = field(default_factory=dict)

    def step(self, number: int, name: str) -> None:
        """Begin a step of the process."""
        self.console.print(f"\n[bold cyan]{number}. {name}[/]")

    def say(self, text: str) -> None:
        """Tell something that is no fact to check."""
        self.console.print(f"   {text}", highlight=False, soft_wrap=True)

    def fact(self, name: str, value: str | int) -> None:
        """Tell a fact, and keep it."""
        self.facts[name] = value
        self.console.print(f"   [dim]{name.replace('_', ' ')}[/]  {value}", highlight=False, soft_wrap=True)


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """Run OpenSSL, which knows nothing of keyark, and return what it prints; raises DemoFailedError."""
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise DemoFailedError(
            f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}"
        )
    return done.stdout
