"""What the client verifies before it accepts an answer.

``verification`` compares certificates and receipts with the request, and ``receipts`` verifies receipts
offline. ``witnesses`` compares the DRM's log with what RM and CM follow and with what this home saw, which
``log_memory`` keeps.
"""
