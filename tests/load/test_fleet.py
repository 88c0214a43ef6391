"""A whole run against real programs: processes, checks, counters, and a plan that cannot work."""

from __future__ import annotations

import pytest

from keyark.deployment.ports import free_ports
from keyark.keys.key_types import KeyType
from keyark.load import Closed, Delivery, KeyCache, LoadPlan, Open
from keyark.load.driving.fleet import LoadClientError, run_load
from keyark.load.measuring.processes import find_services
from keyark.load.planning.keys import USED
from keyark.load.reporting.summary import summarize
from tests.support.running.deployment import make_deployment
from tests.support.running.processes import up


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = make_deployment(tmp_path_factory.mktemp("load") / "deployment", port_base=free_ports())
    with up(folder):
        yield folder


@pytest.fixture
def keys(home) -> KeyCache:
    return KeyCache(home.parent / "keys")


def plan(home, **options) -> LoadPlan:
    return LoadPlan(
        **{
            "home": home,
            "arrival": Closed(clients=4),
            "seconds": 60.0,  # a run ends when its keys run out, however slow the machine is
            "warm_up": 0.0,
            "items": 60,
            "sample": 0.5,
        }
        | options
    )


async def test_a_run_is_checked_and_counted_and_the_services_are_seen(home, keys):
    moments = []
    steady = plan(home, processes=2, seconds=3.0, items=400, arrival=Open(rate=20))
    result = await run_load(steady, keys=keys, on_moment=lambda moment, _: moments.append(moment))
    summary = summarize(result)
    enrolled = summary.kinds["enroll"]
    assert summary.errors == 0
    assert enrolled.items > 0
    assert summary.checked_fully > 0
    assert len(moments) >= 2
    assert set(summary.services) == {"rm", "cm", "drm"}
    for service in summary.services.values():
        assert service.commits > 0
        assert service.rss_mb > service.anonymous_mb > 1
    calls = summary.services["rm"].calls
    assert set(calls) == {"/keyark.v1.RegistrationService/SubmitEnrollments"}
    assert summary.batch_mean >= 1
    assert summary.fsyncs_per_enrollment > 0
    assert summary.client_cpu_us > 0


async def test_keys_are_asked_for_and_several_enrollments_share_a_call(home, keys):
    result = await run_load(
        plan(home, delivery=Delivery.ASKED, batch=4, arrival=Closed(clients=2)), keys=keys
    )
    enrolled = summarize(result).kinds["enroll"]
    assert not enrolled.errors
    assert enrolled.items == 4 * enrolled.calls > 0


async def test_a_mix_makes_every_kind_of_call(home, keys):
    mix = {"enroll": 1, "status": 1, "certificate": 1, "outcome": 1}
    summary = summarize(await run_load(plan(home, mix=mix), keys=keys))
    assert set(summary.kinds) == set(mix)
    assert summary.errors == 0
    queries = plan(home, mix={"status": 1}, arrival=Open(rate=20), seconds=2.0)
    queries_only = summarize(await run_load(queries, keys=keys))
    assert set(queries_only.kinds) == {"status"}


async def test_recoveries_are_whole_ceremonies_whose_keys_are_checked(home, keys):
    for seconds in (
        1.5,
        6.0,
        24.0,
    ):  # one that ends in time is enough, and a fast machine may not use up the quota
        recoveries = plan(home, mix={"recover": 1}, arrival=Closed(clients=2), seconds=seconds)
        summary = summarize(await run_load(recoveries, keys=keys))
        if "recover" in summary.kinds:
            break
    recovered = summary.kinds["recover"]
    assert not recovered.errors, recovered.messages
    assert recovered.items > 0
    calls = summary.services["drm"].calls
    assert calls["/keyark.v1.KeyRecoveryService/AcknowledgeRecoveredKeys"] >= recovered.items
    with pytest.raises(LoadClientError, match="needs an agent"):
        await run_load(plan(home, mix={"recover": 1}, agents=("alice",)), keys=keys)


async def test_a_run_that_has_used_its_keys_says_so(home, keys):
    summary = summarize(await run_load(plan(home, items=6, warm_up=0.0), keys=keys))
    assert any("Keys ran out" in note for note in summary.notes)
    assert summary.kinds["enroll"].items == 6


async def test_refusals_are_counted_by_reason(home, tmp_path):
    keys = KeyCache(tmp_path / "keys")
    first = summarize(await run_load(plan(home, items=40, warm_up=0.0), keys=keys))
    assert not first.errors
    (tmp_path / "keys" / USED).unlink()  # so the same public keys are enrolled once more
    again = summarize(await run_load(plan(home, items=40, warm_up=0.0), keys=keys))
    assert again.kinds["enroll"].errors == {"PUBLIC_KEY_IN_USE": 40}
    assert again.kinds["enroll"].items == 0


async def test_key_types_are_those_of_the_plan(home, keys):
    types = {"signing": KeyType.RSA_2048, "encryption": KeyType.ML_KEM_768}
    summary = summarize(await run_load(plan(home, items=20, warm_up=0.0, sample=1.0, **types), keys=keys))
    assert summary.errors == 0
    assert summary.checked_fully == summary.kinds["enroll"].items == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [({"profile": "unknown"}, "profile"), ({"mix": {"dance": 1}}, "no kind of call 'dance'")],
)
async def test_a_plan_that_cannot_work_fails_with_the_reason(home, keys, options, message):
    with pytest.raises(LoadClientError, match=message):
        await run_load(plan(home, **options), keys=keys)


async def test_a_deployment_that_is_down_fails_the_run(deployment_folder, keys):
    with pytest.raises(LoadClientError, match="nothing listens"):
        await run_load(plan(deployment_folder), keys=keys)


def test_only_processes_that_are_the_services_are_signalled(home, tmp_path):
    found = find_services(home)
    assert set(found) == {"rm", "cm", "drm"}
    meters = found["rm"].meters()
    assert meters["pid"] == found["rm"].pid
    assert meters["store"]["commits"] >= 1
    other = tmp_path / "rm"
    (other / "store").mkdir(parents=True)
    (other / "rm.toml").write_text('[store]\npath = "store"\n')
    (other / "store" / "meters.json").write_text('{"pid": 1, "sequence": 1}')
    assert find_services(tmp_path) == {}
