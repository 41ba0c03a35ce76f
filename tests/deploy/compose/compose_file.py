"""docker-compose.yml as Compose would read it: anchors merged, variables replaced, our image's entrypoint filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests import REPOSITORY

FILE = REPOSITORY / "docker-compose.yml"
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")

_VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


def load(shell: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the file's content; ``shell`` is the environment that ``${NAME:-default}`` looks into."""
    text = _VARIABLE.sub(lambda found: (shell or {}).get(found[1]) or found[2], FILE.read_text(encoding="utf-8"))
    uncommented = re.sub(r"(?m)^ *#.*$", "", text)
    assert "$" not in uncommented, "only ${NAME:-default} is understood here"
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def services(shell: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the services by name."""
    found: dict[str, dict[str, Any]] = load(shell)["services"]
    return found


def environment(service: Mapping[str, Any], shell: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the service's variables: one without a value is the shell's, and absent where the shell has none."""
    given = service.get("environment", {})
    found = {name: (shell or {}).get(name) if value is None else value for name, value in given.items()}
    assert all(value is None or isinstance(value, str) for value in found.values()), "quote what is no text"
    return {name: value for name, value in found.items() if value is not None}


def ours(service: Mapping[str, Any]) -> bool:
    """Say whether the service runs the image of the Dockerfile."""
    return "build" in service


def command_line(service: Mapping[str, Any]) -> list[str]:
    """Return entrypoint and command; for our image with the Dockerfile's entrypoint where the service names none."""
    own = image_entrypoint() if ours(service) else []
    return [*service.get("entrypoint", own), *service.get("command", [])]


def image_entrypoint() -> list[str]:
    """Return the Dockerfile's ENTRYPOINT."""
    found = re.search(r"(?m)^ENTRYPOINT (\[.+\])$", DOCKERFILE)
    assert found
    words: list[str] = json.loads(found[1])
    return words
