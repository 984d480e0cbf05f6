"""Section ``[strategy]``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from config.base import Count, CountOrZero, NotNegative, PositiveFraction, Section


class Strategy(Section):
    """Who is asked what, and what is done with the answers."""

    name: Literal[
        "shared-fedavg", "clustered-fedavg", "full-fedavg", "local", "joint", "late-joiner", "continual", "fedweit", "backpack"
    ] = "shared-fedavg"
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
    cluster_warmup: Count = Field(2, description="clustered-fedavg: rounds without averaging before clients are clustered")
    cluster_by: Literal["updates", "classes", "random", "modality"] = Field(
        "updates",
        description="clustered-fedavg: clusters found by the cosine of updates; or those of equal class lists, random ones of "
        "the same sizes, or each modality",
    )
    cluster_on: Literal["backbone", "adapter"] = Field(
        "backbone", description="clustered-fedavg: the tensors whose updates are compared; they must be shared"
    )
    cluster_count: CountOrZero = Field(
        0, description="clustered-fedavg: clusters in each modality; 0: the number with the highest silhouette"
    )
    joiner_fold: Literal["domain", "client"] = Field("domain", description="late-joiner: what is left out at a time")
    joiner_fraction: PositiveFraction = Field(0.1, description="late-joiner: data.train-fraction of the joiner")
    joiner_epochs: Count = Field(5, description="late-joiner: local epochs of the joiner")

    @model_validator(mode="after")
    def _clusters_are_named_once(self) -> Strategy:
        if self.name == "clustered-fedavg" and self.scope != "all":
            raise ValueError(
                f"strategy.scope = '{self.scope}' is not for strategy.name = 'clustered-fedavg': leave it at 'all' and set "
                "strategy.cluster-by"
            )
        if self.name == "clustered-fedavg" and self.share == "attention":
            raise ValueError(
                "strategy.share = 'attention' is not for strategy.name = 'clustered-fedavg', which compares whole backbones: "
                "use 'backbone', 'backbone+adapter' or 'backbone+adapter+head'"
            )
        if self.name == "clustered-fedavg" and self.cluster_on not in self.share:
            raise ValueError(
                f"strategy.cluster-on = '{self.cluster_on}' compares tensors that strategy.share = '{self.share}' keeps on "
                "the clients: use 'backbone', or share adapters too"
            )
        if self.cluster_count and self.cluster_by != "updates":
            raise ValueError(
                f"strategy.cluster-count = {self.cluster_count} is for strategy.cluster-by = 'updates', found "
                f"'{self.cluster_by}', which has a number of clusters of its own: use 0"
            )
        return self

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
