"""TLS 1.3 only, in processes that are keyark's own.

grpcio has no setting for the lowest TLS version. The internal CA is ECDSA, so with an RSA suite as the only TLS 1.2
cipher 1.2 finds none. gRPC reads that setting once, while it is imported, and it holds for the whole process: so
keyark's programs make it first of all, and a server does not start where gRPC was imported before.

The SDK leaves the process that it is part of alone. Its connections are TLS 1.3 all the same: the services know no
cipher of 1.2 and refuse a call that came over it, and nobody between can change what the two ends offer. Only the
holder of a service's private key could have an SDK speak 1.2, and learns nothing by it that 1.3 would hide from it.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_VARIABLE: Final = "GRPC_SSL_CIPHER_SUITES"
_SUITES: Final = "ECDHE-RSA-AES128-GCM-SHA256"


def rule_out_tls_1_2() -> None:
    """Let this process agree on TLS 1.3 only; call it in a program of keyark, before anything imports gRPC.

    It also silences what gRPC itself prints on standard error. Afterwards it changes nothing.
    """
    if "grpc" not in sys.modules:
        os.environ[_VARIABLE] = _SUITES
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def tls_1_2_is_possible() -> bool:
    """Whether gRPC was imported without the setting, and could still agree on TLS 1.2."""
    return os.environ.get(_VARIABLE) != _SUITES
