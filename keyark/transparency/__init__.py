"""The append-only log of a subsystem: Merkle tree, signed checkpoints, receipts; and heads of other logs."""
