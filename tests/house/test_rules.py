"""Rules of the house that can be tested: the table of URLs, names, and where the map says things are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from glimpse.access.rules import RULES
from glimpse.api.routes import ROUTES, Route, Router
from glimpse.domain.formats import ContentInspector
from glimpse.errors import GlimpseError, MethodNotAllowed, NotFound

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "glimpse").rglob("*.py"))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_url_is_found_and_names_a_known_rule(route: Route) -> None:
    path = re.sub(r"\{\w+\}", "x", route.path)
    assert Router().find(route.method, path)[0] is route
    assert route.policy == "" or route.policy in RULES
    assert (route.record is None) != (route.data is None)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2/images", "GET, POST"),
        ("/v2/images/x", "DELETE, GET, PATCH"),
        ("/v2/images/x/file", "GET, PUT"),
        ("/v2/schemas/image", "GET"),
    ],
)
def test_a_wrong_method_learns_the_right_ones(path: str, allowed: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        Router().find("HEAD", path)
    assert caught.value.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/v2/", "/v2/images/", "/v2//x", "/v2/images//file", "/v2/images/x/y", "/v2/nothing"])
def test_what_has_no_row_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        Router().find("GET", path)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name == "__init__.py":
        assert all(isinstance(node, ast.Expr) for node in tree.body), "no code in __init__.py"
    else:
        assert ast.get_docstring(tree)
    assert path.stem not in {"utils", "common", "helpers", "base", "manager"}
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    if path.name != "conformance.py":
        # `python -O` must change nothing (OSSN-0048): an assertion may only tell mypy what cannot be otherwise.
        assert len(asserts) <= 2


def test_every_error_has_a_status_and_a_line_in_the_tree() -> None:
    import glimpse.errors as errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GlimpseError)]
    assert errors.__doc__ is not None
    for kind in kinds:
        assert 400 <= kind.status < 600
        assert f"{kind.__name__} " in errors.__doc__


def test_the_architecture_page_is_short_and_names_every_module() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(page.splitlines()) <= 300
    for path in SOURCES:
        if path.name != "__init__.py" and "versions" not in path.parts:
            assert path.name in page, f"ARCHITECTURE.md does not say what {path.relative_to(ROOT)} is"


def test_the_journeys_name_what_is_there() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    code = "\n".join(path.read_text() for path in SOURCES)
    members: dict[str, str] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                members[node.name] = members.get(node.name, "") + ast.unparse(node)
    for owner, name in re.findall(r"`([A-Z]\w+)\.(\w+)`", page):
        assert re.search(rf"\b{name}\b", members.get(owner, "")), f"{owner}.{name}"
    for name in re.findall(r"`(_\w+)`", page):
        assert re.search(rf"(def|class) {name}\b|^ *{name}\b.*=", code, re.MULTILINE), name


def test_the_first_example_can_be_uploaded() -> None:
    """What `make serve` tells a newcomer to upload passes the inspection of content: not every text does."""
    example = re.search(r"--file (\S+) --disk-format raw", (ROOT / "scripts" / "serve").read_text())
    assert example is not None
    inspector = ContentInspector("raw", require_match=True, gpt_checks_nonfatal=())
    inspector.feed((ROOT / example[1]).read_bytes())
    assert inspector.conclude()
