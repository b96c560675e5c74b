"""The bucket of each client, by a clock that the test moves."""

from ifas.trigger import limiter
from ifas.trigger.limiter import Limiter


def test_a_burst_then_the_rate_for_each_client():
    now = [100.0]
    limited = Limiter(2, 4, lambda: now[0])
    assert [limited.wait("a") for _ in range(4)] == [0] * 4
    assert limited.wait("a") == 0.5
    assert limited.wait("b") == 0
    now[0] += 0.5
    assert limited.wait("a") == 0
    assert limited.wait("a") == 0.5, "what is refused is not counted"
    now[0] += 3600
    assert [limited.wait("a") for _ in range(5)] == [0, 0, 0, 0, 0.5], "a pause gives no more than a burst"


def test_the_clients_that_are_remembered_are_limited(monkeypatch):
    monkeypatch.setattr(limiter, "MOST", 3)
    limited = Limiter(1, 1, lambda: 0.0)
    for client in "abcd":
        assert limited.wait(client) == 0
    assert limited.wait("d") == 1
    assert len(limited._left) == 3
