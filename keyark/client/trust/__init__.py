"""What the client checks before it believes an answer.

``verification`` holds certificates and receipts against the request, ``receipts`` verifies them offline, ``witnesses``
holds the DRM's log against what RM and CM follow and what this home saw, which ``log_memory`` keeps.
"""
