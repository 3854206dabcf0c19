"""MLflow's own UI, opened with the prepared link: it draws the fronts, and what the runs hold is
there to see.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import FrameLocator, Page

from inn_automl.core.result import JobResult
from inn_automl.reporting.runs import Published, publish
from inn_automl.reporting.server import serve
from inn_automl.reporting.store import locate
from inn_automl.reporting.views import run_fragment
from tests.unit.reporting.job_samples import make_job

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIMIT_MS = 60_000
FRONT_CHART = """
() => [...document.querySelectorAll('.js-plotly-plot')]
    .filter(plot => plot.layout?.xaxis?.title?.text === 'front/latency_ms')
    .filter(plot => plot.querySelector('path.point'))
    .map(plot => plot.data.map(({name, x, y, metricKey}) => ({name, x, y, metricKey})))
"""


@pytest.fixture(scope="module")
def job(
    browser: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[JobResult, Published, str]]:
    """A published job and the address of the UI that shows it. Asks for the browser first: without
    it, no server.
    """
    folder = tmp_path_factory.mktemp("job")
    result, candidates, history = make_job(folder / "out")
    other, _, _ = make_job(
        folder / "other", seed=3, devices={"phone": {"threads": 4, "max_latency_ms": 1.0}}
    )
    store = locate(folder / "home")
    published = publish(result, folder / "out", candidates=candidates, history=history, store=store)
    publish(other, folder / "other", store=store)
    with serve(store, port=0) as server:
        yield result, published, server.url


@pytest.fixture
def quiet_page(page: Page) -> Page:
    page.add_init_script(
        "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
    )
    return page


def test_link_opens_the_fronts_of_the_job_drawn_by_mlflow(
    quiet_page: Page, job: tuple[JobResult, Published, str]
) -> None:
    result, published, url = job
    quiet_page.goto(url + published.fragment)
    quiet_page.wait_for_function(f"({FRONT_CHART})().length >= 2", timeout=LIMIT_MS)
    charts = {
        chart[0]["metricKey"]: {trace["name"]: trace for trace in chart}
        for chart in quiet_page.evaluate(FRONT_CHART)
    }
    assert set(charts) == {"front/accuracy", "front/test_accuracy"}
    for device in result.devices:
        trace = charts["front/accuracy"].pop(f"{device.name} (mnist5k)")
        assert trace["x"] == pytest.approx(
            [point.latency_ms.at_percentile for point in device.front]
        )
        assert trace["y"] == pytest.approx([point.metric_value for point in device.front])
    assert charts["front/accuracy"] == {}
    points = quiet_page.locator(".js-plotly-plot").first.locator("path.point")
    assert points.count() == sum(len(device.front) for device in result.devices)


def test_job_run_leads_to_its_devices(
    quiet_page: Page, job: tuple[JobResult, Published, str]
) -> None:
    result, published, url = job
    quiet_page.goto(url + run_fragment(published.experiment_id, published.job_run_id))
    device = result.devices[0]
    link = quiet_page.get_by_role("link", name=device.name, exact=True)
    link.wait_for(timeout=LIMIT_MS)
    with quiet_page.expect_popup() as opened:
        link.click()
    opened.value.get_by_role("heading", name=f"{device.name} (mnist5k)").wait_for(timeout=LIMIT_MS)
    assert published.device_run_ids[device.name] in opened.value.url


def test_figure_and_tables_show_among_the_artifacts(
    quiet_page: Page, job: tuple[JobResult, Published, str]
) -> None:
    result, published, url = job
    device = result.devices[0]
    run = run_fragment(published.experiment_id, published.device_run_ids[device.name])
    address, query = (url + run).split("?")
    quiet_page.goto(f"{address}/artifacts/front.html?{query}")
    frame: FrameLocator = quiet_page.frame_locator("iframe")
    frame.locator(".front_marks path").first.wait_for(timeout=LIMIT_MS)
    assert frame.locator(".recommended_marks path").count() == 1
    quiet_page.get_by_text("candidates_table.json").click()
    quiet_page.get_by_text("predicted_latency").first.wait_for(timeout=LIMIT_MS)
