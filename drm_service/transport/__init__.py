"""The transport keys: made, certified, rotated, retired, replaced when lost.

``keys`` has those of a running DRM, ``rows`` what its store says of them, ``files`` those on its disk, ``commands``
what an operator asks, ``loss`` the way on without one, and ``restored`` what a store from a backup may not do before
the next rotation.
"""
