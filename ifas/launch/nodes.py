"""Whether the nodes have what the RayJobs of a profile ask for: GPUs, room, a storage class."""

from __future__ import annotations

from ifas.launch.survey import Survey, Told

GPU_LABEL = "ifas.dev/accelerator"


def gpus(cluster: Survey) -> Told:
    """GPUs that nodes offer, and the label by which pods find them."""
    resource = cluster.jobs["train"].gpu_resource
    with_gpus, labelled = [], []
    total = 0
    for node in cluster.items("/api/v1/nodes"):
        count = int((node.get("status", {}).get("allocatable") or {}).get(resource, 0))
        total += count
        with_gpus += [node["metadata"]["name"]] if count else []
        marked = (node["metadata"].get("labels") or {}).get(GPU_LABEL) == "gpu"
        labelled += [node["metadata"]["name"]] if marked else []
    bare, empty = sorted(set(with_gpus) - set(labelled)), sorted(set(labelled) - set(with_gpus))
    if bare:
        fix = f"kubectl label node {' '.join(bare)} {GPU_LABEL}=gpu"
        yield "missing", f"{len(bare)} of {len(with_gpus)} nodes with {resource} have no label {GPU_LABEL}=gpu", fix
    if empty:
        yield "missing", f"{', '.join(empty)} has the label but offers no {resource}", "install the GPU's device plugin"
    if not with_gpus and not empty:
        yield "optional", f"no node offers {resource}", ""
    elif not bare and not empty:
        yield "ok", f"{total} on {len(with_gpus)} nodes", ""


def room(cluster: Survey) -> Told:
    """Whether the workers of the profile's RayJobs fit on the nodes, each by itself, if nothing else ran there."""
    from kubernetes.utils.quantity import parse_quantity

    nodes = [
        {name: float(parse_quantity(amount)) for name, amount in node["status"].get("allocatable", {}).items()}
        for node in cluster.items("/api/v1/nodes")
        if not node.get("spec", {}).get("unschedulable")
    ]
    for step, job in cluster.jobs.items():
        if job.ray != "job":
            yield "ok", f"{step} runs in its own pod with this profile", ""
            continue
        asked = {"cpu": float(job.worker_cpus), "memory": job.worker_memory_gib * 2**30}
        asked |= {job.gpu_resource: float(job.gpus_per_worker)} if job.gpus_per_worker else {}
        there = sum(int(min(node.get(name, 0) // amount for name, amount in asked.items())) for node in nodes)
        on_gpus = f", {job.gpus_per_worker} {job.gpu_resource}" if job.gpus_per_worker else ""
        each = f"{job.worker_cpus} CPUs, {job.worker_memory_gib:g} GiB{on_gpus}"
        said = f"{step} wants {job.min_workers} workers of {each}: the nodes have room for {there}"
        fix = f"add nodes, or lower cluster.{step}.min_workers"
        if there >= job.min_workers:
            yield "ok", said, ""
        elif there:
            yield "unknown", said, f"{fix}; where nodes are added as they are needed, this is well"
        else:
            yield "missing", said, f"{fix} or what each asks for"


def storage_class(cluster: Survey) -> Told:
    """A default class, which volumes without a name get."""
    key = "storageclass.kubernetes.io/is-default-class"
    classes = cluster.items("/apis/storage.k8s.io/v1/storageclasses")
    default = [c["metadata"]["name"] for c in classes if (c["metadata"].get("annotations") or {}).get(key) == "true"]
    if default:
        yield "ok", f"default class {default[0]}", ""
    else:
        what = f"no default storage class (there are {len(classes)}): components/postgres waits for its volume"
        yield "optional", what, "mark one as default, or name one in your overlay"
