"""Losses on a real MLflow server, and trainings without one."""

from pathlib import Path

import pytest
from toy_training import job

from ifas.training import tracking
from ifas.training.curve import CURVE_FILE, read
from ifas.training.job import FINAL
from ifas.training.loop import run
from tests.servers import free_port, mlflow_server

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.slow
def test_a_run_and_its_resumption_are_one_mlflow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "EVERY", 0.0)
    with mlflow_server(tmp_path) as url:
        made = job(tmp_path / "r", f"train.mlflow={url}", "train.species_weights={print: 2.0}")

        class Killed(Exception):
            pass

        def stop(metrics: dict[str, float]) -> None:
            if metrics["step"] == 3:
                raise Killed

        with pytest.raises(Killed):
            run(made, stop)
        assert run(made) == "finished"

        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=url)
        (experiment,) = [e for e in client.search_experiments() if e.name == tracking.EXPERIMENT]
        (found,) = client.search_runs([experiment.experiment_id])
        assert found.info.status == "FINISHED"
        assert found.data.params["train.alpha"] == "0.7"
        assert found.data.params["train.species_weights.print"] == "2.0"
        curve = read(made.run / CURVE_FILE)
        for name, of in (
            ("loss", lambda line: line["loss"]),
            ("judgment.print", lambda line: line["species"].get("print", [None])[0]),
        ):
            history = {m.step: m.value for m in client.get_metric_history(found.info.run_id, name)}
            wanted = {line["step"]: of(line) for line in curve if of(line) is not None}
            assert history == pytest.approx(wanted)


def test_a_server_that_is_down_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "EVERY", 0.0)
    made = job(tmp_path / "r", f"train.mlflow=http://127.0.0.1:{free_port()}")
    assert run(made) == "finished"
    assert (made.run / FINAL).is_dir()
    assert capsys.readouterr().err.count("MLflow misses") == 1
