"""The ready-made rule types: each a condition with parameters, as ``library.toml`` beside this module tells it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, PrivateAttr, create_model, model_validator

from keyark.policy.engine import ACCEPT, Outcome, Reject
from keyark.policy.expressions import Condition, ExpressionError, literal
from keyark.policy.requests import AnyRequest
from keyark.policy.rules.enrollment import RuleSettings

_PARAMETER: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A ready-made rule type: what it rejects, where, by which condition, and its parameters with their defaults."""

    text: str
    stages: frozenset[str]
    condition: str
    message: str
    parameters: Mapping[str, Any]
    permitted: Mapping[str, str]

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the condition with the values of parameters in it, as CEL writes them."""
        return _PARAMETER.sub(lambda found: literal(values[found[1]]), self.condition).strip()

    def tell(self, values: Mapping[str, Any]) -> str:
        """Return the message with the values of parameters in it, as people write them."""
        return _PARAMETER.sub(lambda found: _words(values[found[1]]), self.message)


def _words(value: Any) -> str:
    return (
        ", ".join(value)
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


class TemplateRule(RuleSettings):
    """Base of the ready-made rule types, which add their parameters as fields."""

    template: ClassVar[Template]
    _condition: Condition = PrivateAttr()

    @property
    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.template.parameters}

    @model_validator(mode="after")
    def _compiles(self) -> TemplateRule:
        try:
            self._condition = Condition.compile(self.template.fill(self._values), self.stage)
        except ExpressionError as error:  # a parameter is a bad regular expression, for example
            raise ValueError(error.message) from None
        return self

    def evaluate(self, request: AnyRequest) -> Outcome:
        """Reject where the condition is false."""
        if self._condition.holds(request.context):
            return ACCEPT
        return Reject(self.template.tell(self._values))


def _load_library() -> dict[str, type[TemplateRule]]:
    text = resources.files(__package__).joinpath("library.toml").read_text()
    return {name: _rule_type(name, row) for name, row in tomllib.loads(text).items()}


def _rule_type(name: str, row: dict[str, Any]) -> type[TemplateRule]:
    template = Template(**{"permitted": {}, **row, "stages": frozenset(row["stages"])})
    fields: dict[str, Any] = {"type": (_exactly(name), ...)} | {
        parameter: (_field_type(default, template.permitted.get(parameter)), default)
        for parameter, default in template.parameters.items()
    }
    fields["type"] = (_exactly(name), ...)
    kind = create_model(name, __base__=TemplateRule, __doc__=template.text, **fields)
    kind.stages, kind.template = template.stages, template
    return kind


def _exactly(name: str) -> Any:
    return Literal[name]


def _field_type(default: object, permitted: str | None) -> Any:
    if not isinstance(default, list):
        return type(default)
    if permitted is None:
        return list[str]
    return list[Annotated[str, AfterValidator(_matching(re.compile(permitted)))]]


def _matching(pattern: re.Pattern[str]) -> Any:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not allowed here; the form is {pattern.pattern}")
        return value

    return check


LIBRARY: Final = _load_library()
"""The ready-made rule types by name."""
