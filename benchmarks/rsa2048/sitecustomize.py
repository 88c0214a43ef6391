"""RSA-2048 for a CA and a transport key, which keyark refuses: for the benchmark's processes alone.

The older systems that figures are compared with run on RSA-2048 throughout. `make bench` copies this file
into a virtual environment of its own; nothing else sees it.
"""

from keyark.keys import key_types

key_types.CA_KEY_TYPES = (*key_types.CA_KEY_TYPES, key_types.KeyType.RSA_2048)  # type: ignore[misc]
key_types.TRANSPORT_KEY_TYPES = (*key_types.TRANSPORT_KEY_TYPES, key_types.KeyType.RSA_2048)  # type: ignore[misc]
