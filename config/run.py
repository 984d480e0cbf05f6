"""Sections ``[run]`` and ``[federation]``: how often, where, and with how many clients."""

from __future__ import annotations

from pydantic import Field

from config.base import Count, CountOrZero, Fraction, Positive, Section


class Run(Section):
    """What is run, how often it is looked at, and where its folder is written."""

    name: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", description="folder name of the run; empty: made from the strategy")
    seed: CountOrZero = Field(0, description="seed of initial weights, batches, dropout and client sampling")
    rounds: Count = Field(20, description="federated rounds")
    evaluate_every: CountOrZero = Field(5, description="rounds between looks at the validation split; 0: never")
    output_dir: str = Field(
        "",
        description="parent of run folders; empty: $BACKPACK_RUNS, else ./runs of backpack run, ~/backpack-runs of flwr run",
    )
    resume: bool = Field(False, description="go on from the newest checkpoint of run.name")
    min_replies: CountOrZero = Field(0, description="valid replies a round needs; 0: all that were asked")
    reply_timeout: Positive = Field(3600.0, description="seconds to wait for the replies of one round")
    node_timeout: Positive = Field(120.0, description="seconds to wait for the clients to connect")


class Federation(Section):
    """How many clients take part and what each may use. Flower takes this half apart from the run config."""

    clients: CountOrZero = Field(0, description="simulated nodes; 0: one for each client of the data")
    cpus_per_client: Count = Field(1, description="CPU cores of one simulated client")
    gpus_per_client: Fraction = Field(0.0, description="GPU fraction of one client; its GPU memory is capped to it")
