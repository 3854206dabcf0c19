from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

HERE = ("file:", "data:", "blob:", "http://localhost:")


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page without internet, which must not miss it; leaves a screenshot in the folder that
    `SCREENSHOTS` names.
    """
    missed: list[str] = []

    def refuse(route: Route) -> None:
        missed.append(route.request.url)
        route.abort("internetdisconnected")

    context = browser.new_context(viewport={"width": 1500, "height": 950})
    context.route(lambda url: not url.startswith(HERE), refuse)
    page = context.new_page()
    yield page
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png")
    context.close()
    assert missed == []
