"""Late joiners in one process: equal steps from every start, what comes down, what was picked, and resuming."""

import json

import pytest
from safetensors.numpy import load_file

from config import PROJECT_ROOT, flatten_mapping, parse, read_toml
from server.run_folder import RunFolder
from strategies.protocol import CONFIG
from tests.simulations.helpers import arrays_of, facts, run, size, watch

FULL = "backbone+adapter+head"
STARTS = ("cluster", "cluster-head", "donor", "latent", "longer")
SETTINGS = {
    "strategy.name": "late-joiner",
    "strategy.share": FULL,
    "strategy.cluster-warmup": 1,
    "strategy.cluster-count": 2,
    "strategy.joiner-starts": ",".join(STARTS),
    "strategy.joiner-epochs": 2,
    "strategy.joiner-pick-epochs": 1,
    "strategy.joiner-also": "modeldiff,classes",
    "run.evaluate-every": 0,
    "data.train-fraction": 0.05,
    "strategy.joiner-fraction": 0.03,
    "data.clients": "0,1,3,4",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        crossed = watch(patch)
        folder = run(tmp_path_factory.mktemp("runs"), **SETTINGS)
    return folder, crossed


def start_of(arm: str) -> str:
    return arm.partition("-domain-")[0]


def picks(folder, kind):
    return {event["client"]: event for event in facts(folder) if event["event"] == "pick" and event["kind"] == kind}


def test_every_client_joins_once_from_every_start(finished):
    folder, _ = finished
    joins = [(e["start"], e["clients"]) for e in facts(folder) if e["event"] == "join"]
    assert joins == [(start, clients) for clients in ([0, 3], [1, 4]) for start in ("scratch", *STARTS)]
    last = [e for e in facts(folder) if e["event"] == "evaluate" and start_of(e["arm"]) in ("scratch", *STARTS)]
    assert sorted((start_of(e["arm"]), e["client"]) for e in last) == sorted(
        (start, client) for start in ("scratch", *STARTS) for client in (0, 1, 3, 4)
    )
    assert {(e["split"], e["round"]) for e in last} == {("test", 1)}


def test_steps_are_equal_but_for_the_start_that_pays_for_the_pick(finished):
    steps = {(start_of(e["arm"]), e["client"]): e["steps"] for e in facts(finished[0]) if e["event"] == "train"}
    for client in (0, 1, 3, 4):
        plain = {steps[start, client] for start in ("scratch", "cluster", "cluster-head", "donor", "latent")}
        assert len(plain) == 1
        assert steps["longer", client] == plain.pop() + steps["own-cluster", client]
        assert steps["own-cluster", client] == steps["own-donor", client]


def test_what_comes_down_is_what_the_start_says(finished):
    folder, _ = finished
    found = picks(folder, "cluster")
    down = {
        (start_of(e["arm"]), e["client"]): e["bytes_down"]
        for e in facts(folder)
        if e["event"] == "message" and e["type"] == "train" and start_of(e["arm"]) in ("scratch", *STARTS)
    }
    for client in (0, 1, 3, 4):
        right = found[client]["right"]["updates"]
        expected = {"scratch": 0, "longer": 0, "latent": size("backbone"), "cluster": size("backbone+adapter")}
        expected |= {"donor": size("backbone+adapter"), "cluster-head": size(FULL if right else "backbone+adapter")}
        assert {start: down[start, client] for start in expected} == expected


def test_joiners_start_from_the_very_model_they_picked(finished):
    folder, crossed = finished
    names = {"cluster": "without-clusters-domain-0", "donor": "without-donors"}
    for kind, arm in names.items():
        saved = load_file(folder / "checkpoints" / arm / "round-0002.safetensors")
        for client in (0, 3):
            told = [m for m, _ in crossed if m.metadata.message_type == "train"]
            own = (f"{kind}-domain-0", client)
            (sent,) = [m for m in told if (m.content[CONFIG]["arm"], m.content[CONFIG]["partition_id"]) == own]
            picked = picks(folder, kind)[client]["picked"]
            for name, array in arrays_of(sent).items():
                assert array.numpy().tobytes() == saved[f"{picked}/{name}"].tobytes()


def test_scores_of_the_clients_are_there_and_models_go_down_for_them_alone(finished):
    folder, _ = finished
    for event in picks(folder, "cluster").values():
        assert all(0 <= value <= 1 for value in event["scores"]["modeldiff"].values())
        assert event["right"]["classes"] is True
        assert event["chance"] == 0.5
    compared = [e for e in facts(folder) if e["event"] == "message" and e["type"] == "query.compare"]
    assert {(e["bytes_down"], e["bytes_up"]) for e in compared} == {(2 * size(FULL), 0)}
    assert {e["arm"] for e in compared} == {f"own-{kind}-domain-{d}" for kind in ("cluster", "donor") for d in (0, 1)}


def test_results_tell_every_start(finished):
    folder, _ = finished
    outcome = json.loads((folder / "results.json").read_text())
    starts = {one["start"]: one for one in outcome["starts"]}
    assert list(starts) == ["scratch", *STARTS]
    assert outcome["mean_accuracy"] == pytest.approx(starts["cluster"]["mean_accuracy"])
    assert outcome["mean_control"] == pytest.approx(starts["scratch"]["mean_accuracy"])
    assert outcome["bytes"] == starts["cluster"]["bytes"] > starts["latent"]["bytes"] > 0
    assert {(one["kind"], one["by"], one["joiners"]) for one in outcome["picks"]} == {
        (kind, by, 4) for kind in ("cluster", "donor") for by in ("updates", "modeldiff", "classes")
    }


def test_one_start_gives_what_it_gives_among_others(finished, tmp_path):
    """Starts do not touch one another."""
    alone = run(tmp_path, **{**SETTINGS, "strategy.joiner-starts": "latent", "strategy.cluster-count": 0})

    def tested(folder):
        return [e for e in facts(folder) if e["event"] == "evaluate" and e["arm"].startswith("latent")]

    assert tested(alone) == tested(finished[0])
    assert not {e["event"] for e in facts(alone)} & {"pick", "clusters"}


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it and go on."""


@pytest.mark.parametrize(
    ("fatal", "arm"),
    [
        ("pick", "pick-cluster-domain-1"),
        ("message", "own-cluster-domain-0"),
        ("train", "without-donors"),
        ("clusters", "without-clusters-domain-1"),
        ("evaluate", "cluster-head-domain-0"),
        ("join", "latent-domain-1"),
    ],
)
def test_a_killed_run_resumes_to_the_same_picks_and_bits(finished, tmp_path, monkeypatch, fatal, arm):
    record = RunFolder.record

    def die(self, event, **fields):
        if (event, fields.get("arm")) == (fatal, arm):
            raise Killed
        record(self, event, **fields)

    monkeypatch.setattr(RunFolder, "record", die)
    with pytest.raises(Killed):
        run(tmp_path, **SETTINGS)
    monkeypatch.setattr(RunFolder, "record", record)
    resumed = run(tmp_path, **SETTINGS, **{"run.resume": True})
    assert facts(resumed) == facts(finished[0])
    for path in finished[0].rglob("*.safetensors"):
        assert path.read_bytes() == (resumed / path.relative_to(finished[0])).read_bytes()


def test_the_shipped_simulation_compares_all_starts():
    config = parse(flatten_mapping(read_toml(PROJECT_ROOT / "simulations" / "clustered_late_joiner.toml")))
    assert config.strategy.starts[0] == "cluster"
    assert config.strategy.picks == ("updates",)
