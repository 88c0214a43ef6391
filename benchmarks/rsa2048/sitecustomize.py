"""RSA-2048 for a CA and a transport key, which keyark refuses: for the benchmark's processes alone.

The older systems that figures are compared with run on RSA-2048 throughout. `make bench` copies this file
into a virtual environment of its own; nothing else sees it.
"""

from keyark.keys import key_types

key_types.CA_KEY_TYPES = (*key_types.CA_KEY_TYPES, key_types.KeyType.RSA_2048)  # type: ignore[assignment, misc]
key_types.TRANSPORT_KEY_TYPES = (*key_types.TRANSPORT_KEY_TYPES, key_types.KeyType.RSA_2048)  # type: ignore[assignment, misc]

from keyark.keys import issuer_keys  # noqa: E402 — it takes its own copy of the tuple

issuer_keys._SCHEMES[key_types.KeyType.RSA_2048] = issuer_keys._RSA_SHA256
