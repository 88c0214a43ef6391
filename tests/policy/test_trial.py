"""What a policy would do with requests, without doing anything."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.policy.trial import PastEnrollments

HOUR = 3600


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60 * HOUR)), min_size=1, max_size=30),
    st.integers(1, 24),
)
def test_past_enrollments_had_the_counts_of_their_time(events, hours: int) -> None:
    past, counted = PastEnrollments(), []
    events = sorted(events, key=lambda event: event[1])
    counted = [past.count(caller, now) for caller, now in events]
    for number, (caller, now) in enumerate(events):
        earlier = [at for who, at in events[: number + 1] if who == caller]
        assert counted[number](hours) == sum(at // HOUR > now // HOUR - hours for at in earlier)


def test_past_enrollments_had_the_holders_of_their_names() -> None:
    past = PastEnrollments()
    names = (
        ("Alice", "a@example.org"),
        ("alice", "b@example.org"),
        ("Bob", "b@example.org"),
        ("Alice", "a@example.org"),
    )
    held = [past.hold(*name) for name in names]
    assert [sorted(holders()) for holders in held] == [
        [],
        ["a@example.org"],
        [],
        ["a@example.org", "b@example.org"],
    ]
