"""The SDK: enroll users of a keyark deployment, approve, revoke, audit, and recover keys as its agents.

```python
import asyncio

from keyark.client import EnrollmentClient, PendingApprovalError


async def main() -> None:
    async with EnrollmentClient.open("deployment", identity="client/enroller") as client:
        try:
            alice = await client.enroll(common_name="Alice Example", email="alice@example.org")
        except PendingApprovalError as pending:
            print(pending.message)
        else:
            print(alice.encryption_certificate.serial_number)


asyncio.run(main())
```

| who | uses |
|---|---|
| whoever enrolls | `EnrollmentClient`; `enroll_into` and `enroll_many` write folders that survive a crash |
| registration officers | `ApprovalClient`; `open_session(home, "rm", ...)` with `list_enrollments`, `get_enrollment` |
| officers of the CM | `open_session(home, "cm", ...)` with `list_certificates`, `revoke_certificates`, `publish_crls` |
| recovery agents | `RecoveryClient`; `open_session(home, "drm", ...)` with `list_keys`, `keys_of_person` |
| auditors | `LogReading`; `Witnesses` with `audit_logs`; `verify_receipt_file` needs no service |

What is idempotent is repeated for a while where a service is away or has too much to do: see `Retries`. Decisions of
agents and officers are not repeated. `keyark.client.blocking` has all of it for code without an event loop.

Every error is a `KeyarkError`, and every reason has a class of its own, in `keyark.client.errors` and here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyark.client import errors, public
    from keyark.client.errors import *  # noqa: F403 — what type checkers see
    from keyark.client.public import *  # noqa: F403

    __all__: list[str] = []
    __all__ += errors.__all__
    __all__ += public.__all__
else:

    def __getattr__(name: str) -> object:
        """Import all names when the first is asked for (PEP 562): a command needs few of the modules behind them."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        public = importlib.import_module("keyark.client.public")
        for each in getattr(public, "__all__", ()):  # has none while it is being imported
            globals()[each] = getattr(public, each)
        try:
            return public.__all__ if name == "__all__" else globals()[name]
        except (KeyError, AttributeError):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
