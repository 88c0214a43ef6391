"""The server: mutual TLS, allow-lists, budgets, refusals, and AuditService."""
