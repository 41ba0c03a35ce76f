"""A CloudFormation template as CloudFormation would read it: parameters, conditions and functions resolved.

For what moto's CloudFormation does not create (queue policies, alarms, the bucket's notification and lifecycle), and
for what only real AWS would look at. The resources that moto did create are asked for there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests import REPOSITORY

AWS_FOLDER = REPOSITORY / "k8s" / "aws"
_NOTHING = object()


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt":
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def load() -> dict[str, Any]:
    """Return stack.yaml with its functions in their long form."""
    template: dict[str, Any] = yaml.load((AWS_FOLDER / "stack.yaml").read_text(), _Loader)  # noqa: S506 - a SafeLoader
    return template


class Resolved:
    """The template with these parameters; ``names`` are what Ref gives, ``attributes`` what GetAtt gives.

    Names of resources that are not given are made up.
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        names: Mapping[str, str] | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        region: str = "us-east-1",
        account: str = "123456789012",
    ) -> None:
        self.template = load()
        defaults = {name: str(one.get("Default", "")) for name, one in self.template["Parameters"].items()}
        unknown = set(parameters) - set(defaults)
        assert not unknown, f"no such parameters: {unknown}"
        self._known = {
            **defaults,
            **parameters,
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::Partition": "aws",
            "AWS::StackId": f"arn:aws:cloudformation:{region}:{account}:stack/s/1a2b3c4d-0000-0000-0000-000000000000",
            **(names or {}),
        }
        self._attributes = dict(attributes or {})

    def resources(self) -> dict[str, Any]:
        """Return all resources whose condition holds, by their logical ids."""
        return {
            name: self.value(resource)
            for name, resource in self.template["Resources"].items()
            if "Condition" not in resource or self.condition(resource["Condition"])
        }

    def properties(self, name: str) -> dict[str, Any]:
        """Return the properties of one resource."""
        found: dict[str, Any] = self.value(self.template["Resources"][name]["Properties"])
        return found

    def condition(self, name: str) -> bool:
        """Return whether a condition of the template holds."""
        return self._holds(self.template["Conditions"][name])

    def value(self, node: Any) -> Any:
        """Return the node without functions; AWS::NoValue leaves out what holds it."""
        if isinstance(node, list):
            return [found for item in node if (found := self.value(item)) is not _NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(name, argument)] = node.items()
            if name == "Ref":
                return _NOTHING if argument == "AWS::NoValue" else self._known.get(argument, f"ref-{argument}")
            if name.startswith("Fn::"):
                return self._function(name, argument)
        return {key: found for key, item in node.items() if (found := self.value(item)) is not _NOTHING}

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Fn::If":
                return self.value(argument[1] if self.condition(argument[0]) else argument[2])
            case "Fn::GetAtt":
                return self._attribute(".".join(argument))
            case "Fn::Sub":
                text, more = (argument, {}) if isinstance(argument, str) else (argument[0], self.value(argument[1]))
                return re.sub(r"\$\{([^}!]+)\}", lambda found: self._named(found[1], more), text)
            case "Fn::Select":
                return self.value(argument[1])[int(argument[0])]
            case "Fn::Split":
                return self.value(argument[1]).split(argument[0])
        raise AssertionError(f"{name} is not known here")

    def _named(self, name: str, more: Mapping[str, Any]) -> str:
        if name in more:
            return str(more[name])
        return self._attribute(name) if "." in name else str(self._known.get(name, f"ref-{name}"))

    def _attribute(self, name: str) -> str:
        return self._attributes.get(name, f"arn:aws:made-up:::{name}")

    def _holds(self, node: Mapping[str, Any]) -> bool:
        [(name, argument)] = node.items()
        match name:
            case "Fn::Equals":
                return bool(self.value(argument[0]) == self.value(argument[1]))
            case "Fn::Not":
                return not self._holds(argument[0])
            case "Fn::And":
                return all(self._holds(one) for one in argument)
            case "Condition":
                return self.condition(argument)
        raise AssertionError(f"{name} is not known here")


def policy_file(role: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Return policies/ROLE.json with its ``${NAMES}`` filled in, as ``envsubst`` does it."""
    text = (AWS_FOLDER / "policies" / f"{role}.json").read_text()
    filled = re.sub(r"\$\{([A-Z_]+)\}", lambda found: values[found[1]], text)
    document: dict[str, Any] = json.loads(filled)
    return document


def statements(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the statements of these policies by their Sids, lists sorted, so that two can be compared."""
    found = {}
    for document in documents:
        assert document["Version"] == "2012-10-17"
        for statement in document["Statement"]:
            listed = {
                key: sorted(value) if isinstance(value, list) else [value]
                for key, value in statement.items()
                if key in ("Action", "Resource")
            }
            assert statement["Sid"] not in found, statement["Sid"]
            found[statement["Sid"]] = {**statement, **listed}
    return found
