"""Steps 4 and 6 at the archive.

``steps`` archives: it has each private key proven to fit, sealed, and entered with a receipt. ``refused_pairs`` knows
what did not fit; ``linking`` marks a key CERTIFIED once its certificate is shown.
"""
