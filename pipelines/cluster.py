"""What a task requests of the cluster: resources, placement, secrets, limits. kfp.local ignores all of it."""

import math

from kfp import dsl, kubernetes

from ifas.core.config import ClusterConfig, PodConfig, StepName
from ifas.data.dvc_repo import PASSWORD_ENV, USERNAME_ENV
from ifas.launch.pods import IMAGE_ENV, USER, image_of
from ifas.steps.announce import SECRET_ENV, URL_ENV
from ifas.steps.ending import WEBHOOK_ENV
from ifas.steps.ledger import ADMIN_KEY_ENV, GATE_KEY_ENV, LEDGER_ID_ENV, WITNESS_ENV
from ifas.steps.package import KEY_ENV
from ifas.steps.usage import KFP_RUN_ID, SMALL

#: Secret with the object store's and the ledger's credentials, and ConfigMap with the settings; see infra/base.
SECRET = "ifas-credentials"  # noqa: S105 - the name of a Secret, not its value
CONFIG_MAP = "ifas-settings"
STORE_KEYS = {name: name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
LEDGER_KEYS = {"IFAS_LEDGER": "IFAS_LEDGER"}
SECRET_KEYS = STORE_KEYS | LEDGER_KEYS
#: What the ledger is checked with: set by who runs the cluster, not by who sends a run.
CHECK_KEYS = {name: name for name in (WITNESS_ENV, ADMIN_KEY_ENV, LEDGER_ID_ENV)}
#: What signs the gate's results: only tasks that judge have it.
GATE_KEYS = {GATE_KEY_ENV: GATE_KEY_ENV}
#: Who is told of decisions, and what signs that.
EVENTS_KEYS = {name: name for name in (URL_ENV, SECRET_ENV)}
#: Label of pods that may reach the trigger; see infra/components/trigger.
EVENT_SENDER = "ifas.dev/event-sender"
#: A webhook's URL is a secret where it holds a token.
WEBHOOK_KEYS = {WEBHOOK_ENV: WEBHOOK_ENV}
#: What signs packages, where the configuration says so.
PACKAGE_KEYS = {KEY_ENV: KEY_ENV}
GIT_KEYS = {"username": USERNAME_ENV, "password": PASSWORD_ENV}
CONFIG_KEYS = {"AWS_ENDPOINT_URL": "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION": "AWS_DEFAULT_REGION"}
GPU = "nvidia.com/gpu"
#: Label by which KFP names the run of a pod.
RUN_LABEL = "metadata.labels['pipeline/runid']"


def pod_of(step: StepName, cluster: ClusterConfig) -> PodConfig:
    """The pod of a step: small where it only watches a RayJob, and then as patient as the job's deadlines are long.

    A queue has no deadline but the run's.
    """
    job = {"caption": cluster.caption, "train": cluster.train}.get(step)
    if job is None or job.ray == "own":
        return cluster.pod(step)
    attempts = job.backoff_limit + 1
    patience = attempts * (job.active_deadline_s + job.pre_running_deadline_s) + 900
    return SMALL.model_copy(update={"timeout_s": max(patience, cluster.deadline_s) if job.queue else patience})


def place(task: dsl.PipelineTask, pod: PodConfig, cluster: ClusterConfig) -> None:
    """Sets resources and the rules for every step: non-root, secrets by reference, a deadline, retries.

    KFP's own cache is off: its key knows neither the commit that a revision names nor the weights behind an id, and
    its hit would hand the run a lineage of another run. The step's own cache does, in `cluster.storage`.
    """
    # For failures of the infrastructure; `ifas.steps.attempts` ends the others. Argo counts the backoff's maximum from
    # the start of the first try, starts none after it and ends what runs then: it is as long as the run may be.
    longest = f"{cluster.deadline_s}s"
    task.set_retry(num_retries=cluster.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration=longest)
    task.set_caching_options(False)
    _set(task, pod, cluster)
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=SECRET_KEYS)
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=CHECK_KEYS, optional=True)


def place_last(task: dsl.PipelineTask, cluster: ClusterConfig) -> None:
    """The same for the task that tells how the run ended. It is not repeated: it has retries of its own."""
    task.set_caching_options(False)
    _set(task, SMALL, cluster)
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=STORE_KEYS)
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=WEBHOOK_KEYS, optional=True)


def _set(task: dsl.PipelineTask, pod: PodConfig, cluster: ClusterConfig) -> None:
    if image := image_of(cluster):
        task.set_container_image(image)
        task.set_env_variable(IMAGE_ENV, image)
    kubernetes.use_config_map_as_env(task, config_map_name=CONFIG_MAP, config_map_key_to_env=CONFIG_KEYS)
    if cluster.storage_claim:
        kubernetes.mount_pvc(task, pvc_name=cluster.storage_claim, mount_path=cluster.storage)
    memory = f"{math.ceil(pod.memory_gib * 1024)}Mi"
    task.set_cpu_request(f"{pod.cpus:g}").set_cpu_limit(f"{pod.cpus:g}")
    task.set_memory_request(memory).set_memory_limit(memory)
    kubernetes.set_timeout(task, pod.timeout_s)
    # Its work goes with it: of a pod that watches a RayJob, the job.
    kubernetes.add_pod_annotation(task, "cluster-autoscaler.kubernetes.io/safe-to-evict", "false")
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.use_field_path_as_env(task, env_name=KFP_RUN_ID, field_path=RUN_LABEL)
    if pod.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(pod.gpus)
        kubernetes.add_node_selector(task, label_key="ifas.dev/accelerator", label_value="gpu")
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    if pod.shm_gib:
        kubernetes.empty_dir_mount(
            task,
            volume_name="shm",
            mount_path="/dev/shm",  # noqa: S108 - shared memory, not a temporary file
            medium="Memory",
            size_limit=f"{math.ceil(pod.shm_gib * 1024)}Mi",
        )


def git_credentials(task: dsl.PipelineTask, cluster: ClusterConfig) -> None:
    """Lets a task read the registry's git server, where it asks for a password."""
    if cluster.git_secret:
        kubernetes.use_secret_as_env(task, secret_name=cluster.git_secret, secret_key_to_env=GIT_KEYS)


def judges(task: dsl.PipelineTask) -> None:
    """Lets a task sign what the gate finds."""
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=GATE_KEYS, optional=True)


def announces(task: dsl.PipelineTask) -> None:
    """Lets a task tell a receiver of events what it has decided."""
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=EVENTS_KEYS, optional=True)
    kubernetes.add_pod_label(task, EVENT_SENDER, "true")


def signs(task: dsl.PipelineTask) -> None:
    """Lets a task sign what it packages."""
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env=PACKAGE_KEYS, optional=True)
