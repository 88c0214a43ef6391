"""The load-testing harness: how much a deployment takes, and how far that is from the unavoidable cryptography.

    plan = LoadPlan(home=Path("deployment"), arrival=Closed(clients=64), seconds=30)
    result = await run_load(plan, keys=KeyCache(Path("build/keys")))
    print(result.summary.items_per_second, result.summary.kinds["enroll"].p99_ms)

Clients are processes of their own, so that their CPU is known; every answer is checked, errors are counted by reason.
"""

from keyark.load.fleet import LoadResult, run_load
from keyark.load.keys import KeyCache
from keyark.load.plan import Closed, Delivery, LoadPlan, Open, Ramp

__all__ = ["Closed", "Delivery", "KeyCache", "LoadPlan", "LoadResult", "Open", "Ramp", "run_load"]
