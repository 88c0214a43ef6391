"""X.509: names, subjects, serial numbers, certificates, chains, CAs, revocation lists, OCSP, and PKCS#12."""
