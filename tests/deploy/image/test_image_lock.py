from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import REPOSITORY
from tests.deploy.test_project import locked

LOCK = (REPOSITORY / "requirements-image.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PARTS = ("image", "local", "build")


def part(name: str) -> dict[str, str]:
    """Return name → version of what one part holds; fails on an entry without hashes."""
    text = re.sub(r"\\\n", "", LOCK).split(f"# part: {name}\n")[1].split("# part: ")[0]
    form = r"([a-z0-9._-]+)==(\S+)(?: ; [^-]+)?(?: +--hash=sha256:[0-9a-f]{64})+ *"
    forms = [re.fullmatch(form, line) for line in text.splitlines()]
    assert all(forms)
    return {found[1]: found[2] for found in forms if found}


def declared(*extras: str) -> list[Requirement]:
    """Return what the package and its extras ask for, extras of its own among them followed."""
    lines = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        for line in PROJECT["project"]["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == PROJECT["project"]["name"]:
                lines += [str(inner) for inner in declared(*sorted(requirement.extras))]
            else:
                lines.append(line)
    return [Requirement(line) for line in lines]


def test_the_lock_names_no_place() -> None:
    """The lock holds neither an address nor a path nor a pip option."""
    assert not re.findall(r"(?m)^.*(?:://| @ |^-| /\w).*$", LOCK)


@pytest.mark.parametrize("name", PARTS)
def test_every_part_pins_with_hashes(name: str) -> None:
    """Every entry is one exact version with hashes."""
    assert len(part(name)) >= 5


@pytest.mark.parametrize("requirement", declared("image"), ids=lambda requirement: requirement.name)
def test_the_image_has_what_is_declared(requirement: Requirement) -> None:
    """The core and the extra `image` are in the part `image`, at versions that pyproject.toml allows."""
    assert requirement.specifier.contains(Version(part("image")[canonicalize_name(requirement.name)])), (
        "make lock-image"
    )


def test_the_local_part_comes_on_top() -> None:
    """The part `local` has the extra `local`, and nothing that the image has already."""
    image, local = part("image"), part("local")
    for requirement in declared("local"):
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(Version({**local, **image}[name])), "make lock-image"
    assert not image.keys() & local.keys()


def test_the_build_part_has_the_build_backend() -> None:
    """The part `build` has what [build-system] asks for."""
    for line in PROJECT["build-system"]["requires"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(Version(part("build")[canonicalize_name(requirement.name)]))


def test_what_was_tested_is_what_is_shipped() -> None:
    """Every version in the image is the one of requirements.lock, with which the tests run."""
    tested = locked()
    differing = {
        name: (version, tested.get(name))
        for where in PARTS
        for name, version in part(where).items()
        if tested.get(name) != version
    }
    assert not differing, "run `make lock`, then `make lock-image`"


def test_nothing_that_only_tests_need() -> None:
    """The image has neither pip nor the tests' tools nor the embedded AWS."""
    assert not part("image").keys() & {"pip", "setuptools", "pytest", "hypothesis", "mypy", "ruff", "moto", "hatchling"}
