"""Section ``[strategy]``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from config.base import Count, CountOrZero, NotNegative, PositiveFraction, Section
from config.selection import LOCAL_SCORERS, LocalScorer

JOINER_STARTS = ("latent", "donor", "donor-head", "cluster", "cluster-head", "longer")
PICKS = ("updates", *LOCAL_SCORERS, "classes", "random")


class Strategy(Section):
    """Who is asked what, and what is done with the answers."""

    name: Literal[
        "shared-fedavg",
        "clustered-fedavg",
        "full-fedavg",
        "local",
        "joint",
        "late-joiner",
        "continual",
        "fedweit",
        "backpack",
        "comkd",
        "distil",
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
    joiner_epochs: Count = Field(5, description="late-joiner: local epochs of the joiner, from every start")
    joiner_starts: str = Field(
        "latent",
        description="late-joiner: starts compared with scratch, comma-separated, the result of the run first: latent of all; "
        "donor, one client's model without its head, or donor-head; cluster, that of a cluster, or cluster-head; longer, "
        "scratch with the epochs of the pick added",
    )
    joiner_pick: LocalScorer | Literal["updates", "classes", "random"] = Field(
        "updates",
        description="late-joiner: how a joiner picks its donor or cluster: by the cosine of updates of the tensors "
        "cluster-on; by a scorer of donors, as modeldiff; or equal class lists, or at random",
    )
    joiner_also: str = Field("", description="late-joiner: more ways to pick to record, comma-separated; they decide nothing")
    joiner_pick_epochs: Count = Field(5, description="late-joiner: epochs alone before the joiner picks")

    @property
    def starts(self) -> tuple[str, ...]:
        """What joiners start from, besides from scratch; empty for other strategies."""
        return tuple(self.joiner_starts.split(",")) if self.name == "late-joiner" else ()

    @property
    def picks(self) -> tuple[str, ...]:
        """How joiners pick, the way that decides first; empty if there is nothing to pick."""
        if not any(start.startswith(("donor", "cluster")) for start in self.starts):
            return ()
        return tuple(dict.fromkeys([self.joiner_pick, *filter(None, self.joiner_also.split(","))]))

    @property
    def finds_clusters(self) -> bool:
        """Whether clients are put into clusters."""
        return self.name == "clustered-fedavg" or any(start.startswith("cluster") for start in self.starts)

    @field_validator("joiner_starts")
    @classmethod
    def _starts_are_known(cls, value: str) -> str:
        return _names(value, JOINER_STARTS)

    @field_validator("joiner_also")
    @classmethod
    def _picks_are_known(cls, value: str) -> str:
        return _names(value, PICKS) if value else ""

    @model_validator(mode="after")
    def _joiners_have_what_they_start_from(self) -> Strategy:
        heads = [start for start in self.starts if start.endswith("-head")]
        if heads and "head" not in self.share:
            raise ValueError(
                f"strategy.joiner-starts has '{heads[0]}', and strategy.share = '{self.share}' sends no head: use "
                f"'backbone+adapter+head', or the start '{heads[0].removesuffix('-head')}'"
            )
        if self.picks and self.share == "attention":
            raise ValueError(
                f"strategy.share = 'attention' is not for strategy.joiner-starts = '{self.joiner_starts}', which need whole "
                "backbones: use 'backbone', 'backbone+adapter' or 'backbone+adapter+head'"
            )
        if "updates" in self.picks and self.cluster_on not in self.share:
            raise ValueError(
                f"strategy.cluster-on = '{self.cluster_on}' is what joiners are compared by (joiner-pick, joiner-also), and "
                f"strategy.share = '{self.share}' does not send it: use 'backbone', or share adapters too"
            )
        if "leep" in self.picks and "head" not in self.share:
            raise ValueError(
                f"the scorer leep reads the head of a donor or cluster, which strategy.share = '{self.share}' does not send: "
                "use 'backbone+adapter+head', or another scorer in strategy.joiner-pick and joiner-also"
            )
        return self

    @model_validator(mode="after")
    def _clusters_are_named_once(self) -> Strategy:
        if self.finds_clusters and self.scope != "all":
            raise ValueError(
                f"strategy.scope = '{self.scope}' is not for strategy.name = '{self.name}' with clusters: leave it at 'all' "
                "and set strategy.cluster-by"
            )
        if self.finds_clusters and self.share == "attention":
            raise ValueError(
                f"strategy.share = 'attention' is not for strategy.name = '{self.name}' with clusters, which compares whole "
                "backbones: use 'backbone', 'backbone+adapter' or 'backbone+adapter+head'"
            )
        if self.finds_clusters and self.cluster_on not in self.share:
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


def _names(value: str, known: tuple[str, ...]) -> str:
    found = [name.strip() for name in value.split(",")]
    unknown = [name for name in found if name not in known]
    if unknown or len(set(found)) < len(found):
        what = f"'{', '.join(unknown)}' unknown" if unknown else f"'{value}' names one twice"
        raise ValueError(f"{what}: expected comma-separated names of {', '.join(known)}")
    return ",".join(found)
