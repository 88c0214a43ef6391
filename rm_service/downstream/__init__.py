"""The RM's ways to DRM and CM.

``archive`` and ``issuer`` send batches and verify what comes back; ``outbox`` tells the DRM which certificates were
issued, and ``relinking`` tells it once more; ``archive_head`` has RM and CM cosign one head of the DRM's log.
"""
