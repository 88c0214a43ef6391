"""Public and private keys: their types, SubjectPublicKeyInfo, PKCS#8, files, signatures, and which keys are weak."""
