"""All sections together, and the rules that hold between them."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError, model_validator

from config.base import Section
from config.clip import Clip
from config.continual import Continual
from config.data import Data
from config.data_sets import WITHOUT_TEXTS
from config.distil import Distil
from config.model import CONVOLUTIONAL, IMAGE_MODEL_SIDE, IMAGE_MODELS, WIDE_RESNETS, Model
from config.pack_faults import pack_fault
from config.packing import Packing
from config.run import Federation, Run
from config.selection import Selection
from config.series import SERIES
from config.strategy import Strategy
from config.train import Train


class RunConfig(Section):
    """All settings of one run."""

    run: Run = Run()
    federation: Federation = Federation()
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    continual: Continual = Continual()
    strategy: Strategy = Strategy()
    selection: Selection = Selection()
    distil: Distil = Distil()
    packing: Packing = Packing()
    clip: Clip = Clip()

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
    def _warmup_ends(self) -> RunConfig:
        if self.strategy.finds_clusters and self.strategy.cluster_warmup > self.run.rounds:
            raise ValueError(
                f"strategy.cluster-warmup = {self.strategy.cluster_warmup} is above run.rounds = {self.run.rounds}: clients "
                "would never be averaged"
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
    def _scorers_see_what_they_need(self) -> RunConfig:
        wanted = [self.selection.scorer, *self.selection.also.split(",")]
        if self.strategy.name == "backpack" and "leep" in wanted and "head" not in self.strategy.share:
            raise ValueError(
                f"the scorer leep reads the donor's own head, which strategy.share = '{self.strategy.share}' does not "
                "send: use 'backbone+adapter+head', or another scorer"
            )
        if self.strategy.name == "backpack" and self.strategy.share == "attention":
            raise ValueError(
                "strategy.share = 'attention' is not for strategy.name = 'backpack', whose targets learn on top of whole "
                "backbones: use 'backbone', 'backbone+adapter' or 'backbone+adapter+head'"
            )
        paired = self.strategy.name == "backpack" and self.selection.candidate == "paired"
        if paired and self.data.dataset in WITHOUT_TEXTS:
            raise ValueError(
                f"selection.candidate = 'paired' needs concepts in two modalities, and data.dataset = '{self.data.dataset}' "
                "has images alone: use 'swap' or 'calibrate'"
            )
        if paired and "adapter" not in self.strategy.share:
            raise ValueError(
                f"selection.candidate = 'paired' needs the donor's adapter, which strategy.share = '{self.strategy.share}' "
                "does not send: use 'backbone+adapter'"
            )
        return self

    @property
    def of_teachers(self) -> RunConfig:
        """The settings under which clients train teachers: their model, and whether their inputs are augmented.

        Raises:
            ValueError: ``distil.teacher`` is no model for these data.
        """
        own, fields = self.distil, dict(self)
        if own.teacher != "same":
            model = {**self.model.model_dump(), "name": own.teacher, "width": own.teacher_width}
            fields["model"] = Model.model_validate(model)
        fields["data"] = self.data.model_copy(update={"augment": self.data.augment and own.augment == "both"})
        fields["strategy"] = self.strategy.model_copy(update={"name": "local"})
        return RunConfig(**fields)

    @property
    def packs(self) -> bool:
        """Whether targets of Back-Pack distil their donors into one model."""
        return self.strategy.name == "backpack" and self.selection.combine == "pack"

    @property
    def of_students(self) -> RunConfig:
        """The settings of models that donors are packed into, of ``packing.student-size``.

        Raises:
            ValueError: there is no model of this size.
        """
        size = self.packing.student_size
        if not self.packs or size == 1.0:
            return self
        if self.model.name in CONVOLUTIONAL:
            return self.model_copy(update={"model": self.model.model_copy(update={"width": self.model.width * size**2})})
        sizes = {name: getattr(self.model, name) * size for name in ("dim", "heads", "cross_heads")}
        if broken := [f"model.{name.replace('_', '-')}" for name, found in sizes.items() if found < 1 or found % 1]:
            raise ValueError(
                f"packing.student-size = {size} times {', '.join(broken)} is no whole number: use another size, or another "
                "model"
            )
        changed = self.model.model_copy(update={name: int(found) for name, found in sizes.items()})
        return self.model_copy(update={"model": changed})

    @model_validator(mode="after")
    def _students_can_be_taught(self) -> RunConfig:
        if self.strategy.name != "distil":
            return self
        if self.distil.teacher == "same" and self.distil.teacher_width != 1.0:
            raise ValueError(
                f"distil.teacher-width = {self.distil.teacher_width} is for a model named by distil.teacher, found 'same': "
                "name it, or use 1.0"
            )
        if self.model.adaptive_k != "none":
            raise ValueError(
                f"model.adaptive-k = '{self.model.adaptive_k}' is not for strategy.name = 'distil', as a gate does not leave "
                "its client: use 'none'"
            )
        if self.train.schedule == "one-cycle":
            raise ValueError("train.schedule = 'one-cycle' is for averaging in rounds: strategy 'distil' takes the others")
        if self.packing.how != "distil":
            raise ValueError(f"packing.how = '{self.packing.how}' is not for strategy.name = 'distil': use 'distil'")
        if self.packing.data != "child":
            raise ValueError(
                f"packing.data = '{self.packing.data}': under strategy.name = 'distil' models travel, and no inputs: use "
                "'child'"
            )
        if self.packing.weights == "similarity" or "edu-attention" in self.packing.weighted:
            raise ValueError(
                f"packing.weights = '{self.packing.weights}' and packing.losses = '{self.packing.losses}': strategy 'distil' "
                "measures no similarity of clients and sends no prototypes of classes: use other weights, other losses"
            )
        try:
            _ = self.of_teachers
        except ValidationError as error:
            told = "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in error.errors())
            raise ValueError(f"distil.teacher = '{self.distil.teacher}' of teachers: {told}") from None
        return self

    @model_validator(mode="after")
    def _nothing_is_chosen_by_what_was_trained_on(self) -> RunConfig:
        if not self.data.train_on_validation:
            return self
        if self.strategy.name not in ("local", "distil") or self.data.tasks_per_client > 1:
            raise ValueError(
                "data.train-on-validation = true is for strategy.name = 'local' and 'distil' with one task, which choose "
                f"nothing by validation: found '{self.strategy.name}' with data.tasks-per-client = "
                f"{self.data.tasks_per_client}; use false"
            )
        if self.strategy.name == "distil" and self.packing.checkpoint == "best-validation":
            raise ValueError(
                "packing.checkpoint = 'best-validation' with data.train-on-validation = true chooses an epoch by what was "
                "trained on: use 'last', or false"
            )
        return self

    @model_validator(mode="after")
    def _clip_takes_images(self) -> RunConfig:
        if self.strategy.name != "comkd":
            return self
        if "image" not in self.data.inputs:
            raise ValueError(
                f"strategy.name = 'comkd' is for clients with images, found data.dataset = '{self.data.dataset}' with "
                f"data.modalities = '{self.data.modalities}': use another of either"
            )
        if not self.train.restart_optimizer:
            raise ValueError("train.restart-optimizer = false is not for strategy.name = 'comkd': use true")
        if (side := self.data.image_side) % self.clip.patch_size:
            raise ValueError(f"clip.patch-size = {self.clip.patch_size} does not divide the image side of {side} pixels")
        return self

    @model_validator(mode="after")
    def _donors_can_be_packed(self) -> RunConfig:
        if fault := pack_fault(self):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _probes_are_paired(self) -> RunConfig:
        if self.strategy.name == "backpack" and self.data.series and self.selection.pairing != "random":
            raise ValueError(
                f"selection.pairing = '{self.selection.pairing}' searches for perturbed images or texts, and there are "
                "clients with series: use 'random'"
            )
        return self

    @model_validator(mode="after")
    def _model_fits_the_data(self) -> RunConfig:
        if self.data.dataset in (*WITHOUT_TEXTS, *SERIES) and self.model.embedding_dir:
            has = "series" if self.data.dataset in SERIES else "images"
            raise ValueError(
                f"model.embedding-dir = '{self.model.embedding_dir}' is for texts, and data.dataset = "
                f"'{self.data.dataset}' has {has} alone: leave it empty"
            )
        if self.model.name in CONVOLUTIONAL and self.strategy.share == "attention":
            raise ValueError(f"strategy.share = 'attention': model.name = '{self.model.name}' has none; use 'backbone'")
        if self.model.name in IMAGE_MODELS:
            if self.data.dataset in SERIES:
                raise ValueError(
                    f"model.name = '{self.model.name}' takes images, and data.dataset = '{self.data.dataset}' has series: use "
                    f"{', '.join(WIDE_RESNETS)}, or a model of tokens such as 'linceiver-io'"
                )
            if self.data.image_side != IMAGE_MODEL_SIDE:
                raise ValueError(
                    f"model.name = '{self.model.name}' takes images of {IMAGE_MODEL_SIDE} pixels, and those of data.dataset = "
                    f"'{self.data.dataset}' have {self.data.image_side}: set data.image-size = {IMAGE_MODEL_SIDE}"
                )
            return self
        if self.model.name in WIDE_RESNETS:
            return self
        window, samples = self.data.window, self.model.series_patch
        if self.data.series and window % samples:
            raise ValueError(f"model.series-patch = {samples} does not divide data.window = {window}")
        side, patch = self.data.image_side, self.model.patch_size
        if side % patch:
            raise ValueError(f"model.patch-size = {patch} does not divide the image side of {side} pixels")
        if self.model.name != "linceiver-io" or self.model.low_rank not in ("dense", "dense-before"):
            return self
        lengths = {
            "image": ("images", (side // patch) ** 2, "patches"),
            "text": ("texts", self.data.max_tokens, "tokens (data.max-tokens)"),
            "series": ("series", window // samples, "patches (data.window)"),
        }
        for modality in self.data.inputs:
            inputs, length, unit = lengths[modality]
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


def runs_root(config: RunConfig, default: Path = Path("~/backpack-runs")) -> Path:
    """Return the parent of run folders: ``run.output-dir``, else ``$BACKPACK_RUNS``, else ``default``."""
    chosen = config.run.output_dir or os.environ.get("BACKPACK_RUNS", "") or default
    return Path(chosen).expanduser().resolve()
