"""gRPC as keyark speaks it: mutual TLS 1.3, identities, allow-lists, typed errors, deadlines.

grpcio has no setting for the lowest TLS version. The internal CA is ECDSA, so with an RSA suite as the only TLS 1.2
cipher 1.2 finds none; it has to be said before grpc is imported, which is why it is said here.
"""

import os

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
