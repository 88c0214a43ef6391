"""What the CM tells everybody over plain HTTP: lists, CA certificates, and answers of OCSP.

``crls`` publishes lists, ``ocsp`` answers with ``responder``'s certificate, ``web`` has the addresses, ``port`` puts
them together on ``http``, a server of its own; ``documents`` is what both sides of it know.
"""
