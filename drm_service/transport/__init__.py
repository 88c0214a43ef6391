"""The transport keys: making, certifying, rotating and retiring them, and replacing a lost one.

``keys`` has the keys of a running DRM, ``rows`` its store's entries about them, ``files`` the keys on its disk, and
``commands`` the operator's commands. ``loss`` replaces a lost key. ``restored`` keeps a DRM from a backup from
archiving before the next rotation.
"""
