"""The server's side: mutual TLS, allow-lists, budgets, refusals, and AuditService."""
