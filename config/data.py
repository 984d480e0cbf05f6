"""Section ``[data]``, and what is known of each data set without reading it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from config.base import Count, CountOrZero, PositiveFraction, Section

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
