"""Steps 4 and 6 at the archive.

``steps`` archives: it has each private key proven to match, sealed, and logged with a receipt.
``refused_pairs`` remembers keys that did not match. ``linking`` marks a key CERTIFIED when the RM shows its
certificate.
"""
