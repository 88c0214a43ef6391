"""The RM's calls to DRM and CM.

``archive`` and ``issuer`` send batches and verify the answers. ``outbox`` tells the DRM which certificates were
issued, and ``relinking`` tells it again. ``archive_head`` has RM and CM cosign one head of the DRM's log.
"""
