"""Commands of registration officers: approvals, certificates, revocation."""
