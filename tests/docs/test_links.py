"""The documents hang together: every link leads to a file and a heading, and the index names every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import REPOSITORY

INDEX = REPOSITORY / "docs" / "README.md"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
MOST_LINES_OF_THE_README = 110


def links(page: Path) -> list[tuple[str, str]]:
    """Return path and anchor of every relative link of a page, code left out; both may be empty."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose)
    return [(target.partition("#")[0], target.partition("#")[2]) for target in targets]


def anchors(page: Path) -> set[str]:
    """Return the anchors that a code host gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    """No link of a page is dead, anchors included."""
    for path, anchor in links(page):
        target = page.parent / path if path else page
        assert target.exists(), f"{path} is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path or page.name} has no heading for #{anchor}"


def test_the_index_names_every_page() -> None:
    """A page that nobody links is a page that nobody finds."""
    named = {(INDEX.parent / path).resolve() for path, _ in links(INDEX)}
    pages = {page for page in PAGES[1:] if page != INDEX and page.parent.name != "decisions"}
    assert pages - named == set()


def test_the_readme_is_short() -> None:
    """The README is read in one go."""
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_THE_README
