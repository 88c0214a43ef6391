"""The [[policy.rule]] sections of a service's configuration, and the engine that they make."""

from __future__ import annotations

import hashlib
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from keyark.config import Config, load_config
from keyark.errors import ConfigurationError
from keyark.policy.disclosure import Disclosure
from keyark.policy.engine import PolicyEngine, Rule
from keyark.policy.rules.catalogue import RULE_TYPES
from keyark.policy.rules.enrollment import STAGES, CallerSubjects
from keyark.policy.rules.library import LIBRARY

_TYPES: Final[Any] = reduce(or_, (*RULE_TYPES, *LIBRARY.values()))
AnyRule = Annotated[_TYPES, Field(discriminator="type")]


class PolicyConfig(Config):
    """[policy]: the rules, in the order in which they run, and who sees the details of log entries (nobody else)."""

    rule: list[AnyRule]
    details: Annotated[list[Disclosure], Field(default_factory=list)]
    _file: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Remember the file, to read it again."""
        self._file = (context or {}).get("file")

    @property
    def file(self) -> Path | None:
        """The configuration file that the policy stands in, if it came from one."""
        return self._file

    @model_validator(mode="after")
    def _names_differ(self) -> PolicyConfig:
        names = [rule.name for rule in self.rule]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules have the name {', '.join(twice)}")
        return self

    def digest(self) -> str:
        """Return the SHA-256 of the policy in effect, hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def policy_section(path: Path) -> PolicyConfig:
    """Return the section [policy] of a service's file; raises ConfigurationError with file and line."""
    return load_config(path, _PolicyFile).policy


class _PolicyFile(Config):
    """A service's file, of which only the policy is looked at."""

    model_config = ConfigDict(extra="ignore")

    policy: PolicyConfig


def describe_policy(subsystem: str, config: PolicyConfig) -> list[str]:
    """Return the rules in effect, a line for each in the order in which they run; raises as ``build_engine``."""
    build_engine(subsystem, config)
    lines = [f"policy {config.digest()}: {len(config.rule)} rules"]
    for stage in STAGES:
        for rule in config.rule:
            if rule.stage == stage:
                profiles = f" for {', '.join(rule.profiles)}" if rule.profiles else ""
                lines.append(
                    f"{stage}: {rule.name} ({rule.type}){profiles}{f' when {rule.when}' * bool(rule.when)}"
                )
    return [*lines, *(f"log: {grant}" for grant in config.details)]


def build_engine(subsystem: str, config: PolicyConfig) -> PolicyEngine:
    """Make the engine of a subsystem ("rm", "cm", "drm").

    Raises ConfigurationError where a rule stands at another subsystem's stage, and where the RM has no
    CallerSubjects rule for all requests: then anybody could enroll anyone.
    """
    place = f"{config.file}: " if config.file else ""
    rules: dict[str, list[Rule]] = {}
    for rule in config.rule:
        if STAGES[rule.stage] != subsystem:
            raise ConfigurationError(
                f"{place}Policy rule {rule.name!r} has stage {rule.stage!r}, which does not exist at the "
                f"{subsystem.upper()}; move the rule to the service that has this stage."
            )
        rules.setdefault(rule.stage, []).append(rule)
    grants = [rule for rule in rules.get("submit", []) if isinstance(rule, CallerSubjects)]
    if subsystem == "rm" and all(rule.profiles or rule.when for rule in grants):
        raise ConfigurationError(
            f"{place}The stage 'submit' has no CallerSubjects rule for all requests, so anybody could enroll anyone; "
            "add one."
        )
    return PolicyEngine(subsystem=subsystem, rules=rules, details=config.details)
