"""What the CM serves to everybody over plain HTTP: lists, CA certificates, and OCSP answers.

``crls`` publishes lists, ``ocsp`` answers with ``responder``'s certificate, ``web`` maps URLs to them, and
``port`` puts them together on ``http``, a server of its own. ``documents`` has what both sides share.
"""
