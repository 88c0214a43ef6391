"""P6: who decided on a ceremony is read from the agents' signed words; a hostile archive makes none of them up."""

from __future__ import annotations

import pytest

from keyark.cli.agents.ceremonies import ceremony_facts, show_ceremony
from keyark.client.recovery.review import CeremonyReview
from keyark.statements.ceremonies import DECISION_LABEL, Opening
from keyark.v1.ceremony_pb2 import Decision, DecisionStatement, SignedStatement
from keyark.v1.recovery_pb2 import CeremonyState
from tests.recovery.agents.test_present_agents import add_agents
from tests.recovery.test_review import altered, refused
from tests.support.running.deployment import running
from tests.support.stories.recovering import REASON, agent_keys, agents, approval, approve, lose_key


async def test_a_decision_that_no_agent_made_is_refused(deployment_folder) -> None:
    add_agents(deployment_folder, "mallory")
    async with running(deployment_folder) as deployment:
        home, lost = deployment.home(), await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol", "mallory") as (alice, bob, carol, mallory):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            other = await alice.request_keys([lost.key_id], reason="another")
            await approve(asked.ceremony_id, bob)
            seen = await carol.review(asked.ceremony_id)
            (bobs,) = seen.view.decisions
            renamed = SignedStatement(signature=bobs.signature, certificate=bobs.certificate)
            another_opening = Opening(digest=seen.opening.digest, leaf_hash=bytes(32))
            unsigned = DecisionStatement.FromString(bobs.statement)
            unsigned.agent = "spiffe://example.org/agent/carol"
            renamed.statement = unsigned.SerializeToString(deterministic=True)
            forged = (
                [bobs, bobs],
                [bobs, approval(carol, other, shares=[]).approval],
                [bobs, approval(carol, seen, shares=[], opening=another_opening).approval],
                [bobs, approval(mallory, seen, shares=[]).approval],
                [SignedStatement(statement=bobs.statement, signature=b"x", certificate=bobs.certificate)],
                [renamed],
                [SignedStatement(statement=b"\xff", signature=b"", certificate=b"")],
                [SignedStatement()],
                [rejection_signed_for(carol, bytes(32))],
            )  # fmt: skip
            for decisions in forged:
                assert refused(home, altered(seen.view, decisions=decisions)) == "CEREMONY_MISMATCH"


def rejection_signed_for(agent, digest: bytes) -> SignedStatement:
    signer = agent_keys(agent).signer
    message = DecisionStatement(
        version=1,
        ceremony_digest=digest,
        opening_leaf_hash=bytes(32),
        agent=str(signer.identity),
        decision=Decision.DECISION_REJECT,
        reason="no",
        time_us=1_800_000_000_000_000,
    )
    return signer.sign_bytes(DECISION_LABEL, message.SerializeToString(deterministic=True))


async def test_what_only_the_archive_says_is_marked_and_counted_against(
    deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob)
        seen = await carol.review(asked.ceremony_id)
    lie = altered(seen.view, state=CeremonyState.CEREMONY_STATE_COMPLETED, quorum=1, decisions=[])
    lie.failure.message = "so it ended\ndecided     agent/carol approved"
    lie.approvals_to_repeat.append("spiffe://example.org/agent/carol")
    reviewed = CeremonyReview(deployment.home()).review(lie)
    show_ceremony(reviewed, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    proven, unproven = lines[: lines.index(UNPROVEN)], lines[lines.index(UNPROVEN) + 1 :]
    assert "counted     0 of 2 approvals" in proven
    assert not any("COMPLETED" in line or "carol approved" in line for line in proven if "opens" not in line)
    assert unproven == [
        "  state     COMPLETED",
        "  careful   that takes a quorum of approvals, which the archive does not show",
        "  to repeat agent/carol approved before it was opened anew; approve again",
        "  ended     so it ended\\ndecided     agent/carol approved",
    ]
    facts = ceremony_facts(reviewed)
    assert (facts["quorum"], facts["approved"]) == (2, [])
    assert facts["unproven"] == ["state", "approvals_to_repeat", "resealed", "failure", "log"]


UNPROVEN = "unproven    the archive says this without proof:"
