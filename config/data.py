"""Section ``[data]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from config.base import Count, CountOrZero, Fraction, Positive, PositiveFraction, Section
from config.data_sets import (
    CLASSES_PER_CLIENT,
    COLUMNS,
    DOMAINS_PER_GROUPING,
    IMAGE_SIDE,
    LISTED,
    ONLY_FOR,
    WITH_DOMAINS,
    WITHOUT_TEXTS,
)
from config.series import CHANNELS, SERIES, SERIES_SETTINGS


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


class Data(Section):
    """Which rows a client owns."""

    dataset: Literal[
        "emojipairs",
        "cifar100",
        "cifar10",
        "oxford102",
        "cub",
        "coco",
        "n24news",
        "folder",
        "hf",
        "watch",
        "pamap2",
        "geneactiv",
    ] = "emojipairs"
    also: Literal["none", "watch"] = Field(
        "none", description="a second data set, of series: its subjects are clients too, numbered after the others"
    )
    data_dir: str = Field("", description="folder of the data files; empty: the files shipped with the project")
    grouping: Literal["mixed", "theme", "siblings", "tri", "superclass", "pairs", "seed", "own", "subjects", "all"] = Field(
        "tri",
        description="what a client owns: mixed, theme, siblings and tri are of emojipairs, superclass of cifar100, pairs of "
        "cifar10, seed (the groups of Pick-a-back) of oxford102, cub, coco and n24news, own (groups that the files name) of "
        "folder and hf, subjects of watch, pamap2 and geneactiv; all: every class, of all but emojipairs",
    )
    modalities: Literal["both", "image", "text"] = Field(
        "both", description="image or text: the other modality is missing, and clients are numbered without it"
    )
    image_size: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="side in pixels that images are scaled to; 0: the data set's own"
    )
    label_rule: Literal["first", "largest-area", "single-category"] = Field(
        "first",
        description="coco: an image's class is that of its first object, that with the largest area, or the only one it has",
    )
    columns: str = Field(
        "",
        description="hf: columns that hold image, text, label, domain, group, item and split, such as "
        "'image=img,label=fine_label,group=coarse_label'; those left out are found by their usual names",
    )
    hub_name: str = Field("", description="hf: data set on the Hugging Face hub, as OWNER/NAME; used with download alone")
    download: bool = Field(False, description="hf: fetch hub_name to a data_dir that is not there yet")
    max_bad_fraction: Fraction = Field(
        0.001, description="share of rows that may be unusable; they are left out and listed in the manifest"
    )
    partitioner: Literal["one", "domain", "iid", "dirichlet", "pathological"] = Field(
        "one", description="how the training items of a class group are dealt to its devices; one: a single device"
    )
    devices_per_group: Count = Field(1, description="clients of one class group and modality")
    alpha: Positive = Field(0.5, description="dirichlet: concentration; smaller is more uneven")
    classes_per_device: Count = Field(1, description="pathological: classes that a device has")
    concepts: Literal["shared", "disjoint"] = Field(
        "disjoint", description="whether clients of one class group own the same or different training concepts"
    )
    clients: str = Field("all", description="partition ids that take part, comma-separated, or all")
    train_fraction: PositiveFraction = Field(
        0.25, description="share of the training concepts of its classes, or of what its device was dealt, that a client owns"
    )
    unlabelled_fraction: Fraction = Field(
        0.0,
        description="share of the training concepts (series: windows, and so is train-fraction then) that a client has inputs "
        "of; of those beyond train-fraction it does not know the labels; 0: it has labels of all; data.concepts = 'disjoint' "
        "divides labels, not inputs",
    )
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
    augment: bool = Field(
        True, description="flip and shift of images, word dropout of texts, series-augment of series, in training only"
    )
    shift: Annotated[int, Field(ge=0, le=16)] = Field(3, description="largest shift of an image in pixels, each way")
    shift_border: Literal["replicate", "zero"] = Field(
        "replicate", description="what a shift leaves behind: copies of the border, or black"
    )
    word_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.15

    window: Annotated[int, Field(ge=4, le=4096)] = Field(100, description="samples of a window of a series")
    step: CountOrZero = Field(
        50, description="samples between training windows of a recording; 0: no overlap, as in validation and test"
    )
    subjects_per_client: Count = Field(1, description="series: subjects whose recordings one client has")
    test_subjects: str = Field(
        "", description="series: subjects that everybody is tested on, comma-separated; empty: the data set's own"
    )
    train_on_validation: bool = Field(
        False,
        description="series: recordings held out for validation are trained on too, so that validation tells nothing; for a "
        "last run, whose settings were chosen before",
    )
    channels: str = Field("", description="series: channels that are read, comma-separated; empty: all of the data set")
    series_augment: Literal["none", "removal", "noise", "shift", "mix1", "mix2"] = Field(
        "mix1", description="what data.augment does to series; mix1: removal and shift, mix2: removal, noise and shift"
    )

    @field_validator("clients")
    @classmethod
    def _clients_are_ids(cls, value: str) -> str:
        if value != "all" and (not value or not all(part.strip().isdigit() for part in value.split(","))):
            raise ValueError("expected 'all' or comma-separated partition ids such as '0,3,6'")
        return value

    @field_validator("columns")
    @classmethod
    def _columns_are_pairs(cls, value: str) -> str:
        pairs = [tuple(map(str.strip, part.split("=", 1))) for part in value.split(",") if part.strip()]
        roles = [pair[0] for pair in pairs]
        if not {*roles} <= {*COLUMNS} or len(roles) > len({*roles}) or not all(len(pair) == 2 and pair[1] for pair in pairs):
            raise ValueError(f"expected pairs such as 'image=img,label=fine_label', each with another of {', '.join(COLUMNS)}")
        return value

    @model_validator(mode="after")
    def _download_is_asked_for(self) -> Data:
        if self.download != bool(self.hub_name):
            raise ValueError(
                f"data.hub-name = '{self.hub_name}' with data.download = {str(self.download).lower()}: a name needs "
                "data.download = true, which needs a name"
            )
        return self

    @property
    def num_domains(self) -> int:
        """Clients that share one class group and modality."""
        if self.dataset in SERIES:
            return 1 if self.grouping == "all" else 2  # or more: subjects, whom files may name
        return DOMAINS_PER_GROUPING.get(self.grouping, self.devices_per_group)

    @property
    def image_side(self) -> int:
        """Side of an image in pixels; 0: there are no images."""
        return self.image_size or IMAGE_SIDE.get(self.dataset, 0)

    @property
    def series(self) -> str:
        """The data set of the clients with series; empty: there are none."""
        return self.dataset if self.dataset in SERIES else self.also.replace("none", "")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Channels of a series in the order in which models see them."""
        chosen = tuple(part.strip() for part in self.channels.split(",") if part.strip())
        return chosen or CHANNELS.get(self.series, ())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Modalities that clients may have."""
        found = ["image", "text"] if self.modalities == "both" else [self.modalities]
        if self.dataset in SERIES:
            found = []
        elif self.dataset in WITHOUT_TEXTS:
            found = ["image"]
        return (*found, "series") if self.series else tuple(found)

    @model_validator(mode="after")
    def _settings_fit_the_data_set(self) -> Data:
        if self.grouping not in CLASSES_PER_CLIENT[self.dataset]:
            raise ValueError(
                f"data.grouping = '{self.grouping}' is no grouping of data.dataset = '{self.dataset}': "
                f"expected {', '.join(CLASSES_PER_CLIENT[self.dataset])}"
            )
        if self.dataset in (*WITHOUT_TEXTS, *SERIES):
            has = "series" if self.dataset in SERIES else "images"
            for name in ("text_sources", "max_tokens", "vocab_file", "word_dropout"):
                self._refuse_change(name, f"is for texts, and data.dataset = '{self.dataset}' has {has} alone")
            if self.modalities == "text" or (self.modalities == "image" and has == "series"):
                raise ValueError(
                    f"data.modalities = '{self.modalities}': data.dataset = '{self.dataset}' has {has} alone: use 'both'"
                )
        for name, datasets in ONLY_FOR.items():
            if self.dataset not in datasets:
                self._refuse_change(name, f"is for {', '.join(datasets)}, found data.dataset = '{self.dataset}'")
        return self

    @model_validator(mode="after")
    def _settings_fit_series(self) -> Data:
        if not self.series:
            for name in SERIES_SETTINGS:
                self._refuse_change(name, f"is for series, found data.dataset = '{self.dataset}'")
            return self
        if self.also != "none" and (self.dataset in SERIES or self.tasks_per_client > 1):
            raise ValueError(
                f"data.also = '{self.also}' with data.dataset = '{self.dataset}' and data.tasks-per-client = "
                f"{self.tasks_per_client}: it joins clients with images or texts, and one task each; use 'none'"
            )
        known, found = CHANNELS[self.series], self.channel_names
        if not {*found} <= {*known} or len(found) > len({*found}):
            raise ValueError(
                f"data.channels = '{self.channels}': expected different ones of data set '{self.series}': {', '.join(known)}"
            )
        return self

    def _refuse_change(self, name: str, reason: str) -> None:
        found, default = getattr(self, name), type(self).model_fields[name].default
        if found != default:
            raise ValueError(f"data.{name.replace('_', '-')} = {found!r} {reason}: leave it at {default!r}")

    @model_validator(mode="after")
    def _devices_are_dealt_to(self) -> Data:
        if (self.partitioner == "one") != (self.devices_per_group == 1):
            raise ValueError(
                f"data.partitioner = '{self.partitioner}' with data.devices-per-group = {self.devices_per_group}: 'one' is "
                "for one device, the others for 2 or more"
            )
        for name, owner in (("alpha", "dirichlet"), ("classes_per_device", "pathological")):
            if self.partitioner != owner:
                self._refuse_change(name, f"is for data.partitioner = '{owner}', found '{self.partitioner}'")
        if self.partitioner == "domain" and self.dataset not in WITH_DOMAINS:
            raise ValueError(
                f"data.partitioner = 'domain': data.dataset = '{self.dataset}' names no domains, {' and '.join(WITH_DOMAINS)} "
                "do: use iid, dirichlet or pathological"
            )
        if self.partitioner != "one" and self.concepts == "shared":
            raise ValueError(
                f"data.concepts = 'shared': data.partitioner = '{self.partitioner}' deals each item to one device: use "
                "'disjoint'"
            )
        classes = CLASSES_PER_CLIENT[self.dataset][self.grouping]
        if self.partitioner == "pathological" and classes and self.classes_per_device > classes:
            raise ValueError(
                f"data.classes-per-device = {self.classes_per_device} is above the {classes} classes of a group of "
                f"data.dataset = '{self.dataset}'"
            )
        if self.partitioner == "pathological" and self.tasks_per_client > 1:
            raise ValueError(
                f"data.tasks-per-client = {self.tasks_per_client}: with data.partitioner = 'pathological' a device lacks "
                "classes of its tasks: use another partitioner"
            )
        return self

    @model_validator(mode="after")
    def _disjoint_concepts_suffice(self) -> Data:
        if self.dataset in (*LISTED, *SERIES):
            return self  # a device takes its share of what was dealt to it
        if self.concepts == "disjoint" and self.train_fraction * self.num_domains > 1.0 + 1e-9:
            raise ValueError(
                f"data.train-fraction = {self.train_fraction} with data.concepts = 'disjoint' needs "
                f"{self.train_fraction * self.num_domains:.2f} of the concepts, because grouping '{self.grouping}' has "
                f"{self.num_domains} clients on each class group: use at most {1 / self.num_domains:.3f}, or "
                "data.concepts = 'shared'"
            )
        return self

    @model_validator(mode="after")
    def _unlabelled_inputs_are_beyond_the_labelled(self) -> Data:
        found = self.unlabelled_fraction
        if found and found <= self.train_fraction:
            raise ValueError(
                f"data.unlabelled-fraction = {found} counts the labelled concepts too, and data.train-fraction = "
                f"{self.train_fraction} of them have labels, so that nothing is left: use more, or 0"
            )
        return self

    @model_validator(mode="after")
    def _tasks_are_of_one_size(self) -> Data:
        classes = CLASSES_PER_CLIENT[self.dataset].get(self.grouping, 0)
        if fault := task_fault(classes, self.tasks_per_client) if classes else "":
            raise ValueError(f"{fault}; data.grouping = '{self.grouping}' has {classes} classes a client")
        return self
