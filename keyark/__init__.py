"""keyark: the certificate authority for people who encrypt.

Importing it changes nothing in the process: no environment variable, signal handler, logger or warning filter.
Only keyark's own programs prepare their process (``keyark.programs``, ``keyark.rpc.tls``).
"""

__all__ = ["__version__"]

__version__ = "0.2.0"
