"""The console that Rich draws on, for texts from anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from keyark.text.terminal import below, several_lines


class SafeConsole(Console):
    """A Rich console that reads no markup in texts, and draws nothing unseen from them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Draw as Rich does, and escape what is text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(several_lines(segment.text), segment.style)

    @property
    def file(self) -> IO[str]:
        """Where it draws: below what escapes, for it has escaped by itself."""
        return below(super().file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file
