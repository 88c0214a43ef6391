"""How the demo tells what happens, keeps its facts, and lets OpenSSL judge."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from keyark.errors import KeyarkError, Kind
from keyark.text.console import SafeConsole
from keyark.text.terminal import line


class DemoFailedError(KeyarkError):
    """The story did not go as it should."""

    reason = "DEMO_FAILED"
    kind = Kind.INTERNAL


@dataclass
class Story:
    """Tells each step, and keeps its facts."""

    console: SafeConsole
    facts: dict[str, Any] = field(default_factory=dict)

    def step(self, number: int, name: str) -> None:
        """Begin a step of the process."""
        self.title(f"{number}. {name}")

    def title(self, text: str) -> None:
        """Begin a part of the story."""
        self.console.print()
        self.console.print(text, style="bold cyan")

    def say(self, text: str) -> None:
        """Tell something that is no fact to check."""
        self.console.print(f"   {line(text)}", soft_wrap=True)

    def fact(self, name: str, value: str | int) -> None:
        """Tell a fact, and keep it."""
        self.facts[name] = value
        told = Text.assemble("   ", (name.replace("_", " "), "dim"), f"  {line(str(value))}")
        self.console.print(told, soft_wrap=True)


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """Run OpenSSL, which knows nothing of keyark, and return what it prints; raises DemoFailedError."""
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise DemoFailedError(
            f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}"
        )
    return done.stdout
