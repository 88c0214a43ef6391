"""keyark: the certificate authority for people who encrypt.

To import it changes nothing of the process that does: no environment variable, no signal handler, no logger, no warning
filter. Only keyark's own programs prepare their process (``keyark.programs``, ``keyark.rpc.tls``).
"""

__all__ = ["__version__"]

__version__ = "0.2.0"
