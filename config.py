"""The typed run config: the only reader of run settings.

A Flower run config is a flat mapping of dotted keys to scalars (``data.train-fraction = 0.25``). This module turns one into
a frozen :class:`RunConfig`, and refuses a wrong key, type or value with the key, what was found, what is allowed and the
nearest valid key. It imports nothing of the project, so that every other module may import it.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Scalar = bool | int | float | str
PROJECT_ROOT = Path(__file__).resolve().parent

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]

DOMAINS_PER_GROUPING = {"mixed": 1, "theme": 1, "siblings": 2, "tri": 3, "superclass": 1, "all": 1}
CLASSES_PER_CLIENT = {
    "emojipairs": {"mixed": 4, "theme": 4, "siblings": 8, "tri": 12},
    "cifar100": {"superclass": 5, "all": 100},
}
"""Groupings of each data set, and the classes of one client in each."""
IMAGE_SIDE = {"emojipairs": 32, "cifar100": 32}
"""Side in pixels of the images of each data set."""
WITHOUT_TEXTS = ("cifar100",)
"""Data sets whose clients all have images."""
IMAGE_MODELS = ("lenet5", "vgg16-bn")
"""Models for images alone; they have no attention."""


class ConfigError(ValueError):
    """A run config that cannot be used; the message lists every fault, one a line."""


def task_fault(num_classes: int, num_tasks: int) -> str:
    """Say why classes cannot be split into tasks of one size with 2 classes or more; empty: they can, as one task always can.

    >>> task_fault(12, 4), task_fault(4, 4)
    ('', 'data.tasks-per-client = 4 does not split 4 classes into equal tasks of 2 or more: use one of 1, 2')
    """
    possible = [1, *(tasks for tasks in range(2, num_classes // 2 + 1) if num_classes % tasks == 0)]
    if num_tasks == 1 or num_tasks in possible:
        return ""
    return (
        f"data.tasks-per-client = {num_tasks} does not split {num_classes} classes into equal tasks of 2 or more: "
        f"use one of {', '.join(map(str, possible))}"
    )


def ascending_shares(value: str) -> tuple[float, ...]:
    """Read comma-separated numbers between 0 and 1, ascending.

    >>> ascending_shares("0.5, 0.8")
    (0.5, 0.8)

    Raises:
        ValueError: they are something else.
    """
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        found = (-1.0,)
    if list(found) != sorted(set(found)) or not all(0 < share < 1 for share in found):
        raise ValueError("expected comma-separated numbers between 0 and 1, ascending, such as '0.3,0.5,0.7'")
    return found


class Section(BaseModel):
    """A frozen section of the run config whose keys are written in kebab case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        allow_inf_nan=False,
    )


class Run(Section):
    """What is run, how often it is looked at, and where its folder is written."""

    name: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", description="folder name of the run; empty: made from the strategy")
    seed: CountOrZero = Field(0, description="seed of initial weights, batches, dropout and client sampling")
    rounds: Count = Field(20, description="federated rounds")
    evaluate_every: CountOrZero = Field(5, description="rounds between looks at the validation split; 0: never")
    output_dir: str = Field("", description="parent of run folders; empty: $BACKPACK_RUNS, else ~/backpack-runs")
    resume: bool = Field(False, description="go on from the newest checkpoint of run.name")
    min_replies: CountOrZero = Field(0, description="valid replies a round needs; 0: all that were asked")
    reply_timeout: Positive = Field(3600.0, description="seconds to wait for the replies of one round")
    node_timeout: Positive = Field(120.0, description="seconds to wait for the clients to connect")


class Federation(Section):
    """How many clients take part and what each may use. Flower takes this half apart from the run config."""

    clients: CountOrZero = Field(0, description="simulated nodes; 0: one for each client of the data")
    cpus_per_client: Count = Field(1, description="CPU cores of one simulated client")
    gpus_per_client: Fraction = Field(0.0, description="GPU fraction of one client; its GPU memory is capped to it")


class Data(Section):
    """Which rows a client owns."""

    dataset: Literal["emojipairs", "cifar100"] = "emojipairs"
    data_dir: str = Field("", description="folder of the data files; empty: the files shipped with the project")
    grouping: Literal["mixed", "theme", "siblings", "tri", "superclass", "all"] = Field(
        "tri", description="what a client owns; superclass and all (one client) are of cifar100, the others of emojipairs"
    )
    concepts: Literal["shared", "disjoint"] = Field(
        "disjoint", description="whether clients of one class group own the same or different training concepts"
    )
    clients: str = Field("all", description="partition ids that take part, comma-separated, or all")
    train_fraction: PositiveFraction = Field(0.25, description="share of the training concepts a client owns")
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2, description="share of the non-test concepts kept for validation"
    )
    seed: CountOrZero = Field(0, description="seed of the splits by concept and by task; apart from run.seed on purpose")
    tasks_per_client: Count = Field(1, description="tasks T that a client's classes are split into, met one after the other")
    task_classes: Literal["drawn", "consecutive"] = Field(
        "drawn", description="which classes make a task: drawn by data.seed, or one block of the client's list after another"
    )
    task_order: Literal["same", "shuffled"] = Field(
        "same", description="order in which clients of one class list meet their tasks: one for all, or each its own"
    )
    text_sources: str = Field(
        "cldr-en,emojilib-en,emojimart-en", description="text sources used by the groupings mixed and theme"
    )
    max_tokens: Count = Field(24, description="tokens per text; longer texts are cut")
    vocab_file: str = Field("", description="vocab.txt of bert-base-uncased (30,522 lines); empty: the shipped one (2,000)")
    augment: bool = Field(True, description="flip and shift of images, word dropout of texts, in training only")
    shift: Annotated[int, Field(ge=0, le=16)] = Field(3, description="largest shift of an image in pixels, each way")
    shift_border: Literal["replicate", "zero"] = Field(
        "replicate", description="what a shift leaves behind: copies of the border, or black"
    )
    word_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.15

    @field_validator("clients")
    @classmethod
    def _clients_are_ids(cls, value: str) -> str:
        if value != "all" and (not value or not all(part.strip().isdigit() for part in value.split(","))):
            raise ValueError("expected 'all' or comma-separated partition ids such as '0,3,6'")
        return value

    @property
    def num_domains(self) -> int:
        """Clients that share one class group and modality."""
        return DOMAINS_PER_GROUPING[self.grouping]

    @model_validator(mode="after")
    def _settings_fit_the_data_set(self) -> Data:
        if self.grouping not in CLASSES_PER_CLIENT[self.dataset]:
            raise ValueError(
                f"data.grouping = '{self.grouping}' is no grouping of data.dataset = '{self.dataset}': "
                f"expected {', '.join(CLASSES_PER_CLIENT[self.dataset])}"
            )
        if self.dataset in WITHOUT_TEXTS:
            for name in ("text_sources", "max_tokens", "vocab_file", "word_dropout"):
                found, default = getattr(self, name), type(self).model_fields[name].default
                if found != default:
                    key = name.replace("_", "-")
                    raise ValueError(
                        f"data.{key} = {found!r} is for texts, and data.dataset = '{self.dataset}' has images alone: leave it "
                        f"at {default!r}"
                    )
        return self

    @model_validator(mode="after")
    def _disjoint_concepts_suffice(self) -> Data:
        if self.concepts == "disjoint" and self.train_fraction * self.num_domains > 1.0 + 1e-9:
            raise ValueError(
                f"data.train-fraction = {self.train_fraction} with data.concepts = 'disjoint' needs "
                f"{self.train_fraction * self.num_domains:.2f} of the concepts, because grouping '{self.grouping}' has "
                f"{self.num_domains} clients on each class group: use at most {1 / self.num_domains:.3f}, or "
                "data.concepts = 'shared'"
            )
        return self

    @model_validator(mode="after")
    def _tasks_are_of_one_size(self) -> Data:
        classes = CLASSES_PER_CLIENT[self.dataset].get(self.grouping, 0)
        if fault := task_fault(classes, self.tasks_per_client) if classes else "":
            raise ValueError(f"{fault}; data.grouping = '{self.grouping}' has {classes} classes a client")
        return self


class Model(Section):
    """One client's model and its sizes. The low-rank projection and adaptive k are those of Linceiver IO alone."""

    name: Literal["linceiver-io", "perceiver-io", "perceiver", "beit3", "lenet5", "vgg16-bn"] = "linceiver-io"
    width: Positive = Field(
        1.0, description="lenet5, vgg16-bn: parameters in units of the published network; channels grow by the root"
    )
    dim: Count = Field(64, description="channels D of tokens and latents")
    latents: Count = Field(8, description="latent vectors M; beit3 has none")
    layers: CountOrZero = Field(2, description="self-attention blocks L of the latent stack")
    tie_layers: bool = Field(False, description="one set of weights for all blocks of the latent stack")
    heads: Count = Field(4, description="heads of the latent stack")
    cross_heads: Count = Field(4, description="heads of encoder and decoder cross-attention")
    ff_mult: Count = Field(2, description="hidden width of a feed-forward block, in units of dim")
    feed_forward: Literal["gelu", "geglu"] = "gelu"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    low_rank: Literal["none", "basis", "dense", "dense-before", "pool"] = Field(
        "basis", description="what the rows that attention reads are: all of them, or k projections of them"
    )
    rank: Count = Field(16, description="columns k of the low-rank projection; the most of them with adaptive-k")
    stages: Literal["encoder", "all"] = Field(
        "encoder", description="where rows are projected: the encoder, or latent stack and decoder too"
    )
    sharing: Literal["none", "headwise", "key-value", "layerwise"] = Field(
        "headwise", description="dense: which matrices are one: of all heads, of keys and values too, of all layers too"
    )
    dense_length: CountOrZero = Field(0, description="dense, dense-before: longest input N; 0: the longest of the data")
    adaptive_k: Literal["none", "prefix", "hard-concrete", "sigmoid"] = Field(
        "none", description="gate that learns how many columns are kept; sigmoid: the original one, which keeps them all"
    )
    k_input_bias: bool = Field(False, description="logits of a column depend on its input: b_j(x)")
    k_penalty: NotNegative = Field(0.01, description="price of one open column in the training loss")
    k_target: CountOrZero = Field(0, description="columns that cost nothing; 0: every column is paid for")
    k_ramp: Positive = Field(2.0, description="prefix: columns over which the gate falls from 1 to 0")
    k_warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.2, description="share of the steps before k is penalised")
    k_learning_rate: Positive = Field(0.02, description="learning rate of the gate, on the schedule of the others")
    patch_size: Count = Field(4, description="side of an image patch in pixels")
    fourier_bands: Count = Field(3, description="frequency bands of the Fourier position code, per axis")
    text_position: Literal["learned", "sinusoidal"] = Field(
        "learned", description="position code of texts: learned up to data.max-tokens, or sinusoidal for any length"
    )
    embedding_dir: str = Field(
        "", description="folder of a BERT model whose embeddings, positions included, texts use frozen; empty: learned ones"
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> Model:
        for key, heads in (("heads", self.heads), ("cross-heads", self.cross_heads)):
            if self.dim % heads:
                raise ValueError(f"model.{key} = {heads} does not divide model.dim = {self.dim}")
        if self.layers == 0 and self.name in ("perceiver", "beit3"):
            raise ValueError(f"model.layers = 0 leaves model.name = '{self.name}' without a block: expected 1 or more")
        if self.width != 1.0 and self.name not in IMAGE_MODELS:
            raise ValueError(
                f"model.width = {self.width} needs model.name = {' or '.join(map(repr, IMAGE_MODELS))}, found '{self.name}'"
            )
        if self.name != "linceiver-io":
            for key, value in (("stages", self.stages), ("adaptive-k", self.adaptive_k), ("low-rank", self.low_rank)):
                if value not in ("encoder", "none", "basis"):
                    raise ValueError(f"model.{key} = '{value}' needs model.name = 'linceiver-io', found '{self.name}'")
            return self
        if self.stages == "all" and self.low_rank != "none" and self.rank > self.latents:
            raise ValueError(
                f"model.stages = 'all' projects the {self.latents} latents (model.latents) to model.rank = {self.rank} rows, "
                f"which is more: use a rank of at most {self.latents}, more latents, or model.stages = 'encoder'"
            )
        if (self.adaptive_k != "none" or self.k_input_bias) and self.low_rank in ("none", "pool"):
            raise ValueError(
                f"model.adaptive-k = '{self.adaptive_k}' and model.k-input-bias gate the columns of a projection, which "
                f"model.low-rank = '{self.low_rank}' does not have: use basis, dense or dense-before"
            )
        if self.k_target > self.rank:
            raise ValueError(f"model.k-target = {self.k_target} is above model.rank = {self.rank}, the most columns there are")
        return self


class Train(Section):
    """Local optimisation: AdamW or SGD with gradient clipping and a schedule over the whole run."""

    epochs: Count = Field(2, description="local epochs per round")
    batch_size: Count = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="sgd: Nesterov momentum; 0: none")
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = Field(
        0.05, description="of matrices; adamw: apart from the gradient; sgd: L2, in the gradient"
    )
    schedule: Literal["cosine", "one-cycle", "constant", "steps"] = "cosine"
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="share of the steps of the run that warm up; one-cycle has a warm-up of its own"
    )
    milestones: str = Field("0.5,0.8", description="steps: shares of all steps at which the learning rate falls, ascending")
    milestone_factor: PositiveFraction = Field(0.1, description="steps: what it is multiplied by at each milestone")
    clip_norm: NotNegative = Field(1.0, description="largest gradient norm; 0: no clipping")
    restart_optimizer: bool = Field(True, description="a fresh optimizer every round; false: its state stays with the client")
    class_weights: bool = Field(True, description="weight the loss by inverse class frequency")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: autocast; weights stay float32")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count = Field(1, description="torch threads of one client")

    @field_validator("milestones")
    @classmethod
    def _milestones_ascend(cls, value: str) -> str:
        ascending_shares(value)
        return value


class Continual(Section):
    """How a client learns one task of a stream after another, where ``data.tasks-per-client`` is above 1.

    Batches, optimizer, clipping, weight decay, schedule and peak learning rate are those of ``[train]``; the schedule starts
    anew with each phase of a task, without a warm-up. Scores of picks are always trained by Adam.
    """

    method: Literal["cpg", "packnet", "piggyback", "finetune", "ewc"] = "cpg"
    epochs: Count = Field(40, description="strategy 'continual': epochs of a task before pruning, and of each growth")
    adapter: Literal["private", "first"] = Field(
        "private", description="each task has its own adapter, or all have that of the first; not for finetune and ewc"
    )
    start: Literal["previous", "fresh"] = Field(
        "fresh", description="what a task's own adapter, norms and latents begin as: those of the task before, or new ones"
    )
    goal: Literal["scratch", "none"] = Field(
        "scratch", description="cpg: validation to reach: that of a model trained on the task alone; none: never grow"
    )
    goal_margin: float = Field(0.0, description="cpg: added to the goal; negative: less is enough")
    tolerance: NotNegative = Field(0.02, description="cpg: pruning goes on while validation is this little below the goal")
    ratios: str = Field("0.3,0.5,0.7,0.8,0.9", description="cpg: shares of a task's own and free weights to free, ascending")
    reserve: Fraction = Field(
        0.5, description="cpg: share of the later tasks' equal part that a task frees even where validation falls"
    )
    prune_epochs: Count = Field(4, description="cpg: epochs of each ratio")
    prune_share: PositiveFraction = Field(0.5, description="cpg: share of these steps in which the ratio rises")
    prune_every: Count = Field(10, description="cpg: steps between two prunings")
    prune_rate: Positive = Field(0.1, description="cpg: constant learning rate while pruning, in units of train.learning-rate")
    retrain_epochs: CountOrZero = Field(8, description="cpg, packnet: epochs after pruning")
    retrain_rate: Positive = Field(0.1, description="cpg, packnet: learning rate then, in units of train.learning-rate")
    score_learning_rate: Positive = Field(5e-4, description="cpg, piggyback: learning rate of the scores of picks (Adam)")
    retrain_score_rate: NotNegative = Field(0.2, description="cpg: while retraining, in units of score-learning-rate")
    growth_step: NotNegative = Field(0.25, description="cpg: share of the first widths that one growth adds; 0: no growth")
    growth_cap: Annotated[float, Field(ge=1.0)] = Field(1.5, description="cpg: widest, in units of the first widths")
    packnet_ratio: Fraction = Field(0.6, description="packnet: share of a task's own weights that it frees")
    ewc_strength: NotNegative = Field(1000.0, description="ewc: price λ of moving a weight that earlier tasks need")
    ewc_samples: Count = Field(200, description="ewc: training examples that the Fisher information is estimated from")
    weit_l1: NotNegative = Field(1e-3, description="fedweit: price of masks and adaptive parameters")
    weit_drift: NotNegative = Field(100.0, description="fedweit: price of moving what earlier tasks compute with")
    weit_threshold: NotNegative = Field(2e-3, description="fedweit: adaptive parameters up to this are 0")
    weit_start: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="fedweit: share of the base that a task's adaptive parameters begin as"
    )

    @field_validator("ratios")
    @classmethod
    def _ratios_ascend(cls, value: str) -> str:
        ascending_shares(value)
        return value

    @model_validator(mode="after")
    def _settings_belong_to_the_method(self) -> Continual:
        if self.adapter == "first" and self.method in ("finetune", "ewc"):
            raise ValueError(
                f"continual.adapter = 'first' keeps the adapter of the first task, and continual.method = '{self.method}' "
                "trains everything: use 'private'"
            )
        return self


class Strategy(Section):
    """Who is asked what, and what is done with the answers."""

    name: Literal["shared-fedavg", "full-fedavg", "local", "joint", "late-joiner", "continual", "fedweit"] = "shared-fedavg"
    share: Literal["backbone", "attention", "backbone+adapter", "backbone+adapter+head"] = Field(
        "backbone", description="parameter groups that may leave a client"
    )
    scope: Literal["all", "modality", "classes"] = Field(
        "all", description="who is averaged with whom: all, each modality apart, or clients of one modality and class list"
    )
    weighting: Literal["uniform", "examples"] = Field("uniform", description="plain mean, or weighted by training examples")
    fraction_train: PositiveFraction = Field(1.0, description="share of the clients sampled each round")
    proximal_mu: NotNegative = Field(0.0, description="FedProx term; 0: none")
    wire_dtype: Literal["float32", "float16"] = "float32"
    control: bool = Field(True, description="also run the matched local control")
    joiner_fold: Literal["domain", "client"] = Field("domain", description="late-joiner: what is left out at a time")
    joiner_fraction: PositiveFraction = Field(0.1, description="late-joiner: data.train-fraction of the joiner")
    joiner_epochs: Count = Field(5, description="late-joiner: local epochs of the joiner")

    @model_validator(mode="after")
    def _adapters_stay_inside_a_modality(self) -> Strategy:
        if self.name == "joint" and self.share == "attention":
            raise ValueError("strategy.share = 'attention' is not for strategy.name = 'joint', which shares whole modules")
        if self.name not in ("shared-fedavg", "joint"):
            return self
        if "head" in self.share and self.scope != "classes":
            raise ValueError(
                f"strategy.share = '{self.share}' shares heads, which clients with other classes cannot share: "
                "set strategy.scope = 'classes'"
            )
        if "adapter" in self.share and self.scope == "all":
            raise ValueError(
                f"strategy.share = '{self.share}' shares adapters, which differ in shape between modalities: "
                "set strategy.scope = 'modality' or 'classes'"
            )
        return self


class RunConfig(Section):
    """All settings of one run."""

    run: Run = Run()
    federation: Federation = Federation()
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    continual: Continual = Continual()
    strategy: Strategy = Strategy()

    @model_validator(mode="after")
    def _phases_have_a_schedule(self) -> RunConfig:
        streams = self.strategy.name == "continual" or self.data.tasks_per_client > 1
        if streams and self.train.schedule == "one-cycle":
            raise ValueError(
                "train.schedule = 'one-cycle' is one cycle for the whole run, and streams of tasks are learned in phases: "
                "use 'cosine', 'constant' or 'steps'"
            )
        return self

    @model_validator(mode="after")
    def _someone_is_there_before_the_joiner(self) -> RunConfig:
        if self.strategy.name == "late-joiner" and self.strategy.joiner_fold == "domain" and self.data.num_domains == 1:
            raise ValueError(
                f"strategy.joiner-fold = 'domain' leaves out all clients, as data.grouping = '{self.data.grouping}' has one "
                "domain: set strategy.joiner-fold = 'client'"
            )
        return self

    @model_validator(mode="after")
    def _settings_suit_streams(self) -> RunConfig:
        tasks = self.data.tasks_per_client
        if tasks > 1 and (self.strategy.proximal_mu > 0 or not self.train.restart_optimizer):
            raise ValueError(
                f"strategy.proximal-mu = {self.strategy.proximal_mu} and train.restart-optimizer = "
                f"{str(self.train.restart_optimizer).lower()}: streams of tasks (found {tasks}) have no proximal term and "
                "restart the optimizer: use 0.0 and true"
            )
        if self.strategy.name == "fedweit" and (self.strategy.fraction_train, self.strategy.share) != (1.0, "backbone"):
            raise ValueError(
                f"strategy.name = 'fedweit' asks all clients for the weights of the backbone, found strategy.fraction-train = "
                f"{self.strategy.fraction_train} and strategy.share = '{self.strategy.share}': use 1.0 and 'backbone'"
            )
        if self.strategy.name == "fedweit" and self.continual.adapter == "first":
            raise ValueError("continual.adapter = 'first' is not for strategy.name = 'fedweit': use 'private'")
        if tasks > 1 and "head" in self.strategy.share and self.data.task_order == "shuffled":
            raise ValueError(
                f"strategy.share = '{self.strategy.share}' averages heads, and with data.task-order = 'shuffled' the clients "
                "of a cluster have different tasks at a time: use data.task-order = 'same'"
            )
        if tasks > 1 and self.model.adaptive_k != "none":
            raise ValueError(
                f"model.adaptive-k = '{self.model.adaptive_k}' is learned over the rounds of one task, found "
                f"data.tasks-per-client = {tasks}: use model.adaptive-k = 'none'"
            )
        return self

    @model_validator(mode="after")
    def _model_fits_the_data(self) -> RunConfig:
        if self.data.dataset in WITHOUT_TEXTS and self.model.embedding_dir:
            raise ValueError(
                f"model.embedding-dir = '{self.model.embedding_dir}' is for texts, and data.dataset = "
                f"'{self.data.dataset}' has images alone: leave it empty"
            )
        if self.model.name in IMAGE_MODELS:
            if self.strategy.share == "attention":
                raise ValueError(f"strategy.share = 'attention': model.name = '{self.model.name}' has none; use 'backbone'")
            return self
        side, patch = IMAGE_SIDE[self.data.dataset], self.model.patch_size
        if side % patch:
            raise ValueError(f"model.patch-size = {patch} does not divide the image side of {side} pixels")
        if self.model.name != "linceiver-io" or self.model.low_rank not in ("dense", "dense-before"):
            return self
        lengths = {"images": ((side // patch) ** 2, "patches"), "texts": (self.data.max_tokens, "tokens (data.max-tokens)")}
        if self.data.dataset in WITHOUT_TEXTS:
            del lengths["texts"]
        for inputs, (length, unit) in lengths.items():
            rows = self.model.dense_length or length
            if length > rows:
                raise ValueError(
                    f"{inputs} have {length} {unit}, but model.dense-length = {rows} is the longest input that "
                    f"model.low-rank = '{self.model.low_rank}' takes: raise it, or use 'basis' or 'pool'"
                )
            if self.model.rank > length:
                raise ValueError(
                    f"model.rank = {self.model.rank} is above the {length} {unit} of {inputs}: with model.low-rank = "
                    f"'{self.model.low_rank}' k is at most N, here {length}"
                )
        return self


SECTIONS: dict[str, type[Section]] = {
    name: info.annotation  # type: ignore[misc]
    for name, info in RunConfig.model_fields.items()
}


def runs_root(config: RunConfig) -> Path:
    """Return the parent of run folders: ``run.output-dir``, else ``$BACKPACK_RUNS``, else ``~/backpack-runs``."""
    chosen = config.run.output_dir or os.environ.get("BACKPACK_RUNS", "") or "~/backpack-runs"
    return Path(chosen).expanduser().resolve()


def flatten(config: RunConfig) -> dict[str, Scalar]:
    """Return the config as Flower's flat mapping of dotted kebab-case keys to scalars."""
    return flatten_mapping(config.model_dump(by_alias=True))


def flatten_mapping(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Flatten nested tables to dotted keys; a list becomes a comma-separated string, as Flower has no lists."""
    flat: dict[str, Scalar] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten_mapping(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = ",".join(str(item) for item in value)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse(flat: Mapping[str, Any]) -> RunConfig:
    """Build the config from dotted keys; keys left out keep their defaults.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or range. Every fault is listed.
    """
    known = list(flatten(RunConfig()))
    faults = [_unknown_key(key, known) for key in flat if key not in known]
    nested: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        if key in known:
            section, _, name = key.partition(".")
            nested.setdefault(section, {})[name] = value
    sections: dict[str, Section] = {}
    for section, model in SECTIONS.items():
        try:
            sections[section] = model.model_validate(nested.get(section, {}))
        except ValidationError as error:
            faults += [_wrong_value(section, model, fault) for fault in error.errors()]
    if not faults:
        try:
            return RunConfig(**sections)  # type: ignore[arg-type]
        except ValidationError as error:
            faults += [_wrong_value("", RunConfig, fault) for fault in error.errors()]
    raise ConfigError("the run config is not valid:\n" + "\n".join(f"  - {fault}" for fault in faults))


def read_toml(path: Path) -> dict[str, Scalar]:
    """Read a simulation config (nested tables or dotted keys) as a flat mapping.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return flatten_mapping(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"no simulation config at {path}; the shipped ones are in {PROJECT_ROOT / 'simulations'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None


def parse_override(text: str) -> tuple[str, Scalar]:
    """Read one ``key=value`` of the command line; the value is TOML, and a bare word is a string.

    >>> parse_override("run.rounds=3"), parse_override("data.grouping=tri")
    (('run.rounds', 3), ('data.grouping', 'tri'))
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: expected key=value, for example run.rounds=3")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    if isinstance(value, list):
        value = ",".join(str(item) for item in value)
    return key.strip(), value


def to_toml(flat: Mapping[str, Scalar]) -> str:
    """Write dotted keys as TOML, one table a section, in the order of the config."""
    lines: list[str] = []
    section = ""
    for key, value in flat.items():
        table, _, name = key.partition(".")
        if table != section:
            section = table
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
        lines.append(f"{name} = {_toml_scalar(value)}")
    return "\n".join(lines) + "\n"


def _toml_scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return repr(value)


def _unknown_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"{key}: unknown key; the nearest valid key is {near[0]}"


def _wrong_value(section: str, model: type[Section], fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    key = str(fault["loc"][0])
    field = next(info for name, info in model.model_fields.items() if key in (name, name.replace("_", "-")))
    choices = get_args(field.annotation) if getattr(field.annotation, "__origin__", None) is Literal else ()
    expected = "one of " + ", ".join(map(str, choices)) if choices else str(fault["msg"]).removeprefix("Value error, ")
    found = fault["input"]
    return f"{section}.{key}: found {found!r} ({type(found).__name__}), expected {expected}"
