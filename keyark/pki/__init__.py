"""Key types, SubjectPublicKeyInfo, names, statements and certificates: what services and clients share."""
