"""The pages of the service and its request counts."""

from __future__ import annotations

import asyncio

import pytest
from starlette.testclient import TestClient

from ifas.serving.pages import Metrics, RequestMetrics, pages

CARD = "# Model card\n\nAPCER 0.1 über alles"


@pytest.fixture
def metrics():
    return Metrics()


def counted(metrics):
    return {
        (sample.labels["endpoint"], sample.labels["http_response_code"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "bentoml_service_request_total"
    }


def test_the_card_is_not_published_unless_asked_for(metrics):
    client = TestClient(pages(metrics, None))
    assert client.get("/model-card").status_code == 404
    assert "card" not in client.get("/").text


def test_the_card_is_published_when_asked_for(metrics):
    client = TestClient(pages(metrics, CARD))
    answer = client.get("/model-card")
    assert answer.text == CARD
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "/model-card" in client.get("/").text


def test_the_front_page_is_plain_text(metrics):
    answer = TestClient(pages(metrics, None)).get("/")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "POST" in answer.text or "curl" in answer.text


def test_requests_are_counted_by_known_path(metrics):
    client = TestClient(RequestMetrics(pages(metrics, None), metrics))
    for i in range(20):
        client.request(f"M{i}", f"/secret{i}?x={i}")
    client.get("/?a=1")
    client.get("/")
    client.post("/")
    client.get("/metrics")
    assert counted(metrics) == {("other", "404"): 20, ("/", "200"): 2, ("/", "405"): 1}
    assert "secret" not in client.get("/metrics").text


def test_time_outs_and_clients_that_left_are_counted(metrics):
    async def never(scope, receive, send):
        await asyncio.sleep(3600)

    async def left(scope, receive, send):
        pass

    async def scenario():
        scope = {"type": "http", "path": "/verify"}
        waiting = asyncio.create_task(RequestMetrics(never, metrics)(scope, None, None))
        await asyncio.sleep(0)
        assert metrics.registry.get_sample_value("bentoml_service_request_in_progress", {"endpoint": "/verify"}) == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await RequestMetrics(left, metrics)(scope, None, None)

    asyncio.run(scenario())
    assert counted(metrics) == {("/verify", "504"): 1, ("/verify", "499"): 1}
    assert metrics.registry.get_sample_value("bentoml_service_request_in_progress", {"endpoint": "/verify"}) == 0
