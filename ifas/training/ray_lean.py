"""Ray Train without the processes that a training here has no use for.

Each is a Python process that imports Ray before the workers may start, and then wakes a hundred times a second. No
setting turns them off. What is overridden is private to Ray, whose version is pinned.
"""

from __future__ import annotations

import threading
from typing import Any

import ray
from ray.train import Result
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class LeanTrainer(DataParallelTrainer):
    """Has no manager of Ray Datasets: workers read their own pictures."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, DatasetsCallback)]


class LocalTrainer(LeanTrainer):
    """For a Ray that lives as long as the driver: nothing outlives it, and nobody can add a machine."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [
            one for one in super()._create_default_callbacks() if not isinstance(one, PlacementGroupCleanerCallback)
        ]

    def _initialize_and_run_controller(self, **controller: Any) -> Result:
        actor = ray.remote(num_cpus=0)(_Controller)
        running = actor.remote(**{**controller, "scaling_policy": _ThisMachine(self.scaling_config)})
        if threading.current_thread() is threading.main_thread():
            self._register_sigint_handler(running)
        ray.get(running.run.remote())
        result: Result = ray.get(running.get_result.remote())
        return result


class _Workers(WorkerGroup):
    """Need no environment beside that of the node, so that they take processes that it started in advance."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:  # noqa: ARG004
        return {}


class _Controller(TrainController):
    worker_group_cls = _Workers


class _ThisMachine(FixedScalingPolicy):
    """Asks no coordinator of autoscaling for machines."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:  # noqa: ARG002
        return

    def _maybe_send_resource_request(self) -> None:
        return
