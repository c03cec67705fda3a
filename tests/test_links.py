"""Every link of a page leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.pages import PAGES, ROOT, anchors, inline, links, tokens


def problem(page: str, link: str) -> str | None:
    """What is wrong with a link of a page, if anything."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None if parts.scheme in ("http", "https") else "neither a page nor a web address"
    if parts.path.startswith("/"):
        return "an absolute path"
    file = PAGES[page]
    if parts.path:
        file = Path(PAGES[page].parent, unquote(parts.path)).resolve()
    if not file.is_relative_to(ROOT) or not file.exists():
        return "there is no such file"
    if parts.fragment and parts.fragment not in anchors(str(file.relative_to(ROOT))):
        return "there is no such heading"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    wrong = {link: found for link in links(page) if (found := problem(page, link))}
    assert wrong == {}, f"edit {page}"


@pytest.mark.parametrize("page", PAGES)
def test_what_looks_like_a_link_is_one(page: str) -> None:
    text = [each.content for each in inline(page, "text")]
    assert [each for each in text if re.search(r"\]\(|\]\[", each)] == []
    html = [each for each in (*inline(page, "html_inline"), *tokens(page)) if "html" in each.type]
    assert [each.content for each in html if not each.content.startswith("<!--")] == []


@pytest.mark.parametrize("page", sorted(page for page in PAGES if page.startswith("docs/")))
def test_a_page_of_docs_stands_in_the_index(page: str) -> None:
    if page != "docs/README.md":
        is_linked = page.removeprefix("docs/") in set(links("docs/README.md"))
        assert is_linked, f"edit docs/README.md: link {page}"


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("docs/tour.md", None),
        ("docs/tour.md#what-there-is", None),
        ("#run-it", None),
        ("deploy/bicep", None),
        ("https://example.org/", None),
        ("docs/none.md", "there is no such file"),
        ("docs/tour.md#none", "there is no such heading"),
        ("#none", "there is no such heading"),
        ("/docs/tour.md", "an absolute path"),
        ("../README.md", "there is no such file"),
        ("file:///etc/hosts", "neither a page nor a web address"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, found: str | None) -> None:
    assert problem("README.md", link) == found


def test_headings_have_the_names_that_github_gives_them() -> None:
    assert {"accountsauth", "accountsjobs", "the-web-configuration-file"} <= anchors(
        "docs/configuration.md"
    )
    assert "of-each-job-collector-task_counts" in anchors("docs/metrics.md")
