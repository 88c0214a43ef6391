"""The worker processes of the DRM. Only they have plaintext keys, one at a time."""
