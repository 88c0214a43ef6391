"""Commands of auditors: audit, audit log, doctor."""
