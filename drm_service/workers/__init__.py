"""The worker processes of the DRM, where plaintext keys exist: in no other process, and for one key at a time."""
