"""keyark: the certificate authority for people who encrypt.

grpcio has no setting for the lowest TLS version. The internal CA is ECDSA, so with an RSA suite as the only TLS 1.2
cipher 1.2 finds none. gRPC reads the setting once, while it is imported: so it is made here, before anything of keyark
can import it, and a server does not start where somebody else imported gRPC first.
"""

import os
import sys

_SUITES = "ECDHE-RSA-AES128-GCM-SHA256"

TLS_1_2_IS_POSSIBLE = "grpc" in sys.modules and os.environ.get("GRPC_SSL_CIPHER_SUITES") != _SUITES
"""Whether gRPC was imported before this setting, and could still agree on TLS 1.2."""

os.environ["GRPC_SSL_CIPHER_SUITES"] = _SUITES
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
