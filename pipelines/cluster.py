"""What a task requests of the cluster: resources, placement, secrets, limits. kfp.local ignores all of it."""

from dataclasses import dataclass

from kfp import dsl, kubernetes

from ifas.launch.pods import USER

#: Secret with the object store's and the ledger's credentials, and ConfigMap with the settings; see infra/base.
SECRET = "ifas-credentials"  # noqa: S105 - the name of a Secret, not its value
CONFIG_MAP = "ifas-settings"
SECRET_KEYS = {
    "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    "IFAS_LEDGER": "IFAS_LEDGER",
}
CONFIG_KEYS = {"AWS_ENDPOINT_URL": "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION": "AWS_DEFAULT_REGION"}
GPU = "nvidia.com/gpu"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Resources of one task. `shm` is the size of /dev/shm, which data loaders and NCCL need."""

    cpu: str
    memory: str
    timeout_seconds: int
    gpus: int = 0
    shm: str = ""


DEFAULT = Placement(cpu="2", memory="8G", timeout_seconds=3600)
CAPTION = Placement(cpu="4", memory="16G", timeout_seconds=6 * 3600, gpus=1, shm="2Gi")
TRAIN = Placement(cpu="8", memory="64G", timeout_seconds=24 * 3600, gpus=1, shm="8Gi")


def place(task: dsl.PipelineTask, placement: Placement) -> None:
    """Sets `placement` and the rules for every task: non-root, secrets by reference, a deadline."""
    task.set_cpu_request(placement.cpu).set_cpu_limit(placement.cpu)
    task.set_memory_request(placement.memory).set_memory_limit(placement.memory)
    # For failures of the infrastructure. A step's own error comes again, but then soon: earlier work is reused.
    task.set_retry(num_retries=2, backoff_duration="30s", backoff_factor=2, backoff_max_duration="300s")
    kubernetes.set_timeout(task, placement.timeout_seconds)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=SECRET_KEYS)
    kubernetes.use_config_map_as_env(task, config_map_name=CONFIG_MAP, config_map_key_to_env=CONFIG_KEYS)
    if placement.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(placement.gpus)
        kubernetes.add_node_selector(task, label_key="ifas.dev/accelerator", label_value="gpu")
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    if placement.shm:
        kubernetes.empty_dir_mount(
            task,
            volume_name="shm",
            mount_path="/dev/shm",  # noqa: S108 - shared memory, not a temporary file
            medium="Memory",
            size_limit=placement.shm,
        )
