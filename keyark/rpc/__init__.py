"""gRPC as keyark speaks it: mutual TLS 1.3, identities, allow-lists, typed errors, deadlines."""
