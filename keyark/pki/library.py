"""What `cryptography` raises over bytes that are malformed; its errors have no common base.

It parses names, keys, extensions and times only when they are asked for. So each loader asks once for all that is used
later, and turns these errors into a typed one.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm

PARSING_ERRORS: Final = (
    ValueError,  # UnicodeError too
    TypeError,
    OverflowError,
    IndexError,
    NotImplementedError,
    UnsupportedAlgorithm,
    InternalError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.AttributeNotFound,
    x509.UnsupportedGeneralNameType,
)
