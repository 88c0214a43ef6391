"""A service that `keyark up` started ends with it, however that ends: nobody else would renew or stop it."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

from keyark.errors import UnavailableError

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM, which drains, when the process that started this one ends.

    Raises UnavailableError where ``parent`` has ended already, and OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise UnavailableError("The process that started this service has ended; start it again.")
