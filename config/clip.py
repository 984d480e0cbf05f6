"""Section ``[clip]``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from config.base import Count, CountOrZero, NotNegative, Positive, Section


class Clip(Section):
    """Strategy comkd: a CLIP of one client teaches smaller image branches on the unlabelled images of the others.

    Optimizer, batches, schedule and peak learning rate are those of ``[train]``; students learn for ``run.rounds`` times
    ``train.epochs`` epochs.
    """

    teacher: CountOrZero = Field(0, description="partition id of the client that trains the teacher; it has images")
    novel_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="share of a client's classes, its last ones, that nobody trains on: novel; the others are base"
    )
    pretrained_dir: str = Field(
        "", description="folder of a CLIP model that the teacher starts from, frozen but for its prompts; empty: from scratch"
    )
    context: str = Field("a photo of a", description="words before a class name; the teacher's text prompts start as these")
    image_prompts: CountOrZero = Field(4, description="learned tokens beside the patches of an image in the teacher")
    patch_size: Count = Field(4, description="side of an image patch in pixels, of students and of a teacher from scratch")
    width: Count = Field(64, description="teacher from scratch: channels of both branches, and of the features they share")
    layers: Count = Field(2, description="teacher from scratch: blocks of each branch")
    heads: Count = Field(4, description="attention heads of teacher from scratch and students")
    student_width: Count = Field(32, description="channels of the student's image branch")
    student_layers: Count = Field(1, description="blocks of the student's image branch")
    pretrain_epochs: CountOrZero = Field(
        60, description="teacher from scratch: epochs of all its weights on image-text pairs and labels of base classes"
    )
    prompt_epochs: CountOrZero = Field(20, description="epochs of the prompts alone on labelled images of base classes")
    prompt_rate: Positive = Field(1.0, description="peak learning rate of the prompts, in units of train.learning-rate")
    temperature: Positive = Field(1.0, description="τ of the softmax of teacher and student")
    ifalign_weight: NotNegative = Field(1.0, description="weight of IFAlign in the student's loss; 0: without it")
    attention: bool = Field(True, description="EduAttention behind the student's projector; false: without it")
    attention_scale: NotNegative = Field(0.0, description="C that its scores are divided by; 0: the root of the features")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Clip:
        for key, width in (("width", self.width), ("student-width", self.student_width)):
            if width % self.heads:
                raise ValueError(f"clip.heads = {self.heads} does not divide clip.{key} = {width}")
        if not self.context.strip():
            raise ValueError("clip.context is empty: expected words, such as 'a photo of a', which the text prompts start as")
        return self
