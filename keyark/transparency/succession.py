"""The keys of a log that follow one another: the newest signs, and while one hands over to the next both do.

    signer = SuccessionSigner()
    signer.begin(NoteSigner.from_private_key(origin, first))
    signer.hand_over(NoteSigner.from_private_key(origin, second))
    head = await log.sign_anew()  # carries both signatures
    signer.complete()

Who knows only the older key verifies that head, and so that the log under the newer key is the same one.
"""

from __future__ import annotations

from keyark.transparency.checkpoint import Checkpoint, CheckpointKeyError, NoteSigner


class SuccessionSigner:
    """Signs with the newest key, and with the one before it until the handing over is complete."""

    def __init__(self) -> None:
        self._keys: list[NoteSigner] = []

    def begin(self, key: NoteSigner) -> None:
        """Sign with this key alone."""
        self._keys = [key]

    def hand_over(self, key: NoteSigner) -> None:
        """Sign with this key, and with the one that signed so far."""
        self._keys = [key, self._newest]

    def complete(self) -> None:
        """Sign with the newest key alone."""
        self._keys = [self._newest]

    @property
    def _newest(self) -> NoteSigner:
        if not self._keys:
            raise CheckpointKeyError("The log has no key yet that signs it; start the service again.")
        return self._keys[0]

    @property
    def is_slow(self) -> bool:
        """Whether signing takes so long that it belongs in a thread."""
        return any(key.is_slow for key in self._keys)

    @property
    def public_key_der(self) -> bytes:
        """The newest key, SubjectPublicKeyInfo."""
        return self._newest.public_key_der

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """Return the signed note (UTF-8), the newest key's signature first; raises CheckpointKeyError without one."""
        newest, *before = self._newest, *self._keys[1:]
        return newest.sign(checkpoint) + b"".join(key.signature_line(checkpoint) for key in before)
