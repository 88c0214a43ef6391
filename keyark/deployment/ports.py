"""Ports for deployments that come and go: demonstrations, benchmarks, tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from typing import Final

from keyark.errors import UnavailableError

FIRST: Final = 20_000
LAST: Final = 32_000
"""Above, systems take ports for connections that they open."""
ROOM: Final = 30
"""Ports that a process looks at first, so that those that start together do not meet."""


def free_ports(count: int = 3) -> int:
    """Return the first of neighbouring ports of 127.0.0.1 that nobody listens at now; raises UnavailableError."""
    own = FIRST + os.getpid() * ROOM % (LAST - FIRST)
    for base in itertools.chain(range(own, LAST, count), range(FIRST, own, count)):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + count):
                listener = stack.enter_context(socket.socket())
                listener.bind(("127.0.0.1", port))
            return base
    raise UnavailableError("No free ports were found on 127.0.0.1.")
