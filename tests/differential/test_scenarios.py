"""The scenarios leave no URL out, whether a server runs or not."""

from __future__ import annotations

import re
from collections import Counter

from glimpse.api.routes import ROUTES, Route, Router
from glimpse.errors import GlimpseError
from tests.differential.discovery import LATER
from tests.differential.steps import Step
from tests.differential.test_differential import everything


def test_every_url_is_asked_for() -> None:
    asked: Counter[str] = Counter()
    router = Router()
    for step in (step for scenario in everything() for step in scenario.steps):
        if isinstance(step, Step):
            path = re.sub(r"\$\{[\w-]+\}", "x", step.path).partition("?")[0]
            try:
                asked[_name(router.find(step.method, path)[0])] += 1
            except GlimpseError:
                continue
    meant = [_name(route) for route in ROUTES if not any(part in route.path for part in LATER)]
    assert [name for name in meant if asked[name] < 3] == []


def _name(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_the_requests_are_the_same_in_each_run() -> None:
    assert [str(scenario) for scenario in everything()] == [str(scenario) for scenario in everything()]
