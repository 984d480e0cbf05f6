"""Section ``[model]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.base import Count, CountOrZero, NotNegative, Positive, Section

IMAGE_MODELS = ("lenet5", "vgg16-bn", "resnet18")
"""Models for images alone; they have no attention."""
WIDE_RESNETS = ("wrn-16-1", "wrn-16-3", "wrn-16-8", "wrn-28-1", "wrn-28-3")
"""Models for images, or for series; they have no attention either."""
CONVOLUTIONAL = (*IMAGE_MODELS, *WIDE_RESNETS)
IMAGE_MODEL_SIDE = 32
"""Side in pixels of the images that they take."""
ModelName = Literal[
    "linceiver-io",
    "perceiver-io",
    "perceiver",
    "beit3",
    "lenet5",
    "vgg16-bn",
    "resnet18",
    "wrn-16-1",
    "wrn-16-3",
    "wrn-16-8",
    "wrn-28-1",
    "wrn-28-3",
]


class Model(Section):
    """One client's model and its sizes. The low-rank projection and adaptive k are those of Linceiver IO alone."""

    name: ModelName = "linceiver-io"
    width: Positive = Field(
        1.0,
        description="convolutional networks: parameters in units of the published network; channels grow by the root",
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
    series_patch: Count = Field(4, description="samples of a patch of a series")
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
        if self.width != 1.0 and self.name not in CONVOLUTIONAL:
            raise ValueError(
                f"model.width = {self.width} needs model.name = {' or '.join(map(repr, CONVOLUTIONAL))}, found '{self.name}'"
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
