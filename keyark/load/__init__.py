"""The load-testing harness: how much a deployment takes, and how far that is from the unavoidable cryptography.

    from keyark.load import Closed, KeyCache, LoadPlan
    from keyark.load.driving.fleet import run_load
    from keyark.load.reporting.summary import summarize

    plan = LoadPlan(home=Path("deployment"), arrival=Closed(clients=64), seconds=30)
    result = await run_load(plan, keys=KeyCache(Path("build/keys")))
    print(summarize(result).kinds["enroll"].p99_ms)

Clients are processes of their own, so that their CPU is known; every answer is checked, errors are counted by reason.
Running one needs `keyark[load]`.
"""

from keyark.load.planning.keys import KeyCache
from keyark.load.planning.plan import Closed, Delivery, LoadPlan, Open, Ramp

__all__ = ["Closed", "Delivery", "KeyCache", "LoadPlan", "Open", "Ramp"]
