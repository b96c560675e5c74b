"""The memory of workers, which the driver's own pod does not show."""

import pytest
import ray

from ifas.compute import peak, relay
from ifas.compute.connection import connected


@pytest.mark.slow
def test_the_driver_hears_what_its_workers_needed() -> None:
    # More than this process ever had: earlier tests ran in it.
    needed = peak.here() + 0.5

    def eat(queue: object) -> None:
        eaten = bytearray(int(needed * 2**30))
        eaten[::4096] = b"1" * len(eaten[::4096])
        relay.send_peak(queue)

    peak.told(100.0)
    peak.forget()
    with connected(cpus=1, object_store=80 * 2**20), relay.heard() as (queue, said):
        ray.get(ray.remote(eat).remote(queue))
    assert said == []  # it is none of the messages that the driver waits for
    assert peak.here() < needed <= peak.highest() < needed + 1


def test_a_pod_tells_of_all_its_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("cgroup") / "memory.peak"
    file.write_text(f"{3 * 2**30}\n")
    monkeypatch.setattr(peak, "CGROUP_PEAK", file)
    assert peak.here() < 3
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert peak.here() == 3
    file.write_text("max")  # no number: what the process itself had
    assert 0 < peak.here() < 3
