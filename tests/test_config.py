import tomllib
from pathlib import Path

import pytest

import config
from config import (
    DISTILL_WEIGHTS,
    ConfigError,
    RunConfig,
    flatten,
    flatten_mapping,
    parse,
    parse_override,
    read_toml,
    to_toml,
    weighted_losses,
)

ROOT = Path(__file__).resolve().parent.parent
ACROSS = {"selection.across": True}
PAIRED = {"strategy.name": "backpack", "strategy.scope": "modality", "selection.candidate": "paired"}
CIFAR = {"data.dataset": "cifar100", "data.grouping": "superclass"}


def test_pyproject_defaults_equal_the_model():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert flatten_mapping(pyproject["tool"]["flwr"]["app"]["config"]) == flatten(RunConfig())


def test_pyproject_has_no_legacy_federations():
    assert "federations" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]


JOINER = {"strategy.name": "late-joiner", "strategy.joiner-starts": "donor"}


@pytest.mark.parametrize("path", sorted((ROOT / "simulations").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path):
    parse(read_toml(path))


def test_default_config_is_the_default_simulation():
    shipped = parse(read_toml(ROOT / "simulations" / "linceiver.toml"))
    assert shipped.model_copy(update={"federation": RunConfig().federation}) == RunConfig()


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"data.groupin": "tri"}, ["data.groupin", "data.grouping"]),
        ({"run.rounds": "many"}, ["run.rounds", "'many'", "str", "integer"]),
        ({"run.rounds": True}, ["run.rounds", "bool"]),
        ({"run.rounds": 0}, ["run.rounds", "0", "greater than or equal to 1"]),
        ({"data.grouping": "triples"}, ["data.grouping", "mixed, theme, siblings, tri"]),
        ({"model.heads": 5}, ["model.heads = 5", "64"]),
        ({"data.train-fraction": 0.5}, ["0.333", "tri"]),
        ({"strategy.share": "backbone+adapter"}, ["strategy.scope = 'modality'"]),
        ({"strategy.share": "backbone+adapter+head", "strategy.scope": "modality"}, ["strategy.scope = 'classes'"]),
        ({"data.clients": "1;2"}, ["data.clients", "0,3,6"]),
        ({"data.tasks-per-client": 5}, ["data.tasks-per-client = 5", "12 classes", "1, 2, 3, 4, 6", "'tri'"]),
        ({"data.tasks-per-client": 12}, ["data.tasks-per-client = 12", "tasks of 2 or more"]),
        ({"data.tasks-per-client": 3, "data.grouping": "siblings"}, ["= 3", "8 classes", "1, 2, 4"]),
        ({"data.tasks-per-client": 0}, ["data.tasks-per-client", "0"]),
        ({"data.task-order": "random"}, ["data.task-order", "same, shuffled"]),
        ({"strategy.name": "backpack", "selection.scorer": "leep"}, ["leep", "own head", "'backbone'"]),
        ({"strategy.name": "backpack", "strategy.share": "attention"}, ["'attention'", "'backpack'", "whole backbones"]),
        ({"strategy.name": "backpack", "data.tasks-per-client": 3}, ["one task", "data.tasks-per-client = 3"]),
        ({"selection.scorer": "oracle"}, ["'oracle'", "selection.routing = 'all-pairs'"]),
        ({"selection.scorer": "best-on-average", "selection.routing": "cluster"}, ["'best-on-average'", "'all-pairs'"]),
        ({"selection.scorer": "random", "selection.routing": "cluster"}, ["'cluster'", "'random'", "'modeldiff'"]),
        ({"selection.scorer": "random", "selection.shortlist": 3}, ["selection.shortlist = 3", "'random'", "'modeldiff'"]),
        ({**ACROSS, "selection.shortlist": 3, "selection.sketch": "responses"}, ["'responses'", "'weights'"]),
        ({"selection.candidate": "paired"}, ["'paired'", "selection.across = true"]),
        ({**ACROSS, "selection.candidate": "paired", "selection.pairing": "words"}, ["'paired'", "'words'"]),
        ({**ACROSS, **PAIRED, "strategy.share": "backbone"}, ["'paired'", "the donor's adapter", "'backbone+adapter'"]),
        ({**ACROSS, **PAIRED, **CIFAR}, ["'paired'", "'cifar100' has images alone", "'swap'"]),
        ({"selection.pairing": "words", "selection.also": "cka"}, ["'words'", "modeldiff alone", "cka"]),
        ({"selection.finalists": 2, "selection.abstain": False}, ["selection.finalists = 2", "selection.abstain"]),
        ({"selection.also": "cka,ckb"}, ["ckb unknown", "linear-probe"]),
        ({"continual.ratios": "0.5,0.3"}, ["continual.ratios", "'0.5,0.3'", "ascending"]),
        ({"continual.method": "ewc", "continual.adapter": "first"}, ["continual.adapter = 'first'", "'ewc'"]),
        ({"data.tasks-per-client": 3, "strategy.proximal-mu": 0.1}, ["proximal-mu = 0.1", "found 3"]),
        ({"data.tasks-per-client": 3, "train.restart-optimizer": False}, ["train.restart-optimizer = false"]),
        ({"data.tasks-per-client": 3, "model.adaptive-k": "prefix"}, ["'prefix'", "data.tasks-per-client = 3"]),
        ({"model.low-rank": "dense", "model.rank": 30}, ["model.rank = 30", "24 tokens", "texts"]),
        ({"model.low-rank": "dense-before", "model.rank": 70, "data.max-tokens": 80}, ["model.rank = 70", "64 patches"]),
        ({"model.low-rank": "dense", "model.dense-length": 50}, ["64 patches", "model.dense-length = 50", "basis"]),
        ({"model.stages": "all"}, ["8 latents", "model.rank = 16"]),
        ({"model.adaptive-k": "prefix", "model.low-rank": "pool"}, ["'prefix'", "'pool'", "dense-before"]),
        ({"model.k-input-bias": True, "model.low-rank": "none"}, ["model.k-input-bias", "'none'"]),
        ({"model.k-target": 17}, ["model.k-target = 17", "16"]),
        ({"model.name": "beit3", "model.low-rank": "pool"}, ["'pool'", "'linceiver-io'", "'beit3'"]),
        ({"model.name": "perceiver", "model.layers": 0}, ["model.layers = 0", "'perceiver'"]),
        ({"model.name": "beit3", "model.layers": 0}, ["model.layers = 0", "'beit3'"]),
        ({"strategy.name": "joint", "strategy.share": "attention"}, ["'attention'", "'joint'"]),
        ({"strategy.name": "joint", "strategy.share": "backbone+adapter"}, ["strategy.scope = 'modality'"]),
        ({"strategy.name": "late-joiner", "data.grouping": "mixed"}, ["'mixed'", "strategy.joiner-fold = 'client'"]),
        ({"strategy.joiner-starts": "latent,clusters"}, ["strategy.joiner-starts", "'clusters' unknown", "cluster-head"]),
        ({"strategy.joiner-starts": "donor, donor"}, ["strategy.joiner-starts", "names one twice"]),
        ({"strategy.joiner-starts": ""}, ["strategy.joiner-starts", "unknown", "latent"]),
        ({"strategy.joiner-also": "ddv"}, ["strategy.joiner-also", "'ddv' unknown", "modeldiff"]),
        ({"strategy.joiner-pick": "ddv"}, ["strategy.joiner-pick", "modeldiff", "updates"]),
        (
            {**JOINER, "strategy.joiner-starts": "cluster-head"},
            ["'cluster-head'", "'backbone' sends no head", "the start 'cluster'"],
        ),
        ({**JOINER, "strategy.share": "attention"}, ["'attention'", "strategy.joiner-starts = 'donor'"]),
        ({**JOINER, "strategy.cluster-on": "adapter"}, ["strategy.cluster-on = 'adapter'", "'backbone'"]),
        ({**JOINER, "strategy.joiner-also": "leep"}, ["leep", "'backbone'", "strategy.joiner-pick"]),
        ({**JOINER, "strategy.joiner-starts": "cluster", "strategy.scope": "modality"}, ["'modality'", "'late-joiner'"]),
        ({**JOINER, "strategy.joiner-starts": "cluster", "strategy.cluster-warmup": 30}, ["= 30", "run.rounds = 20"]),
        ({"model.patch-size": 5}, ["model.patch-size = 5", "32 pixels"]),
        ({"model.cross-heads": 7}, ["model.cross-heads = 7", "64"]),
        ({"data.dataset": "cifar10"}, ["data.dataset", "'cifar10'", "emojipairs, cifar100"]),
        ({"data.dataset": "cifar100"}, ["'tri'", "'cifar100'", "superclass"]),
        ({"data.grouping": "superclass"}, ["'superclass'", "'emojipairs'", "tri"]),
        ({"data.grouping": "all"}, ["'all'", "'emojipairs'", "tri"]),
        ({**CIFAR, "data.grouping": "all", "data.tasks-per-client": 3}, ["= 3", "100 classes", "2, 4, 5, 10, 20, 25, 50"]),
        ({"data.task-classes": "sorted"}, ["data.task-classes", "drawn, consecutive"]),
        ({"data.shift": 17}, ["data.shift", "17", "less than or equal to 16"]),
        ({"data.shift-border": "black"}, ["data.shift-border", "replicate, zero"]),
        ({**CIFAR, "data.max-tokens": 30}, ["data.max-tokens = 30", "'cifar100'", "24"]),
        ({**CIFAR, "data.vocab-file": "/vocab.txt"}, ["data.vocab-file = '/vocab.txt'", "'cifar100'"]),
        ({**CIFAR, "model.embedding-dir": "/bert"}, ["model.embedding-dir = '/bert'", "'cifar100'"]),
        ({"model.width": 0.5}, ["model.width = 0.5", "'lenet5' or 'vgg16-bn'", "'linceiver-io'"]),
        ({"model.name": "lenet5", "model.width": 0.0}, ["model.width", "0.0", "greater than 0"]),
        ({"model.name": "vgg16-bn", "strategy.share": "attention"}, ["'attention'", "'vgg16-bn'"]),
        ({"model.name": "lenet5", "model.low-rank": "pool"}, ["'pool'", "'linceiver-io'", "'lenet5'"]),
        ({"train.milestones": "0.8,0.5"}, ["train.milestones", "'0.8,0.5'", "ascending"]),
        ({"train.milestones": "0.5;0.8"}, ["train.milestones", "comma-separated"]),
        ({"train.milestones": "0.5,1.0"}, ["train.milestones", "between 0 and 1"]),
        ({"train.milestones": ""}, ["train.milestones"]),
        ({"train.milestone-factor": 0.0}, ["train.milestone-factor", "greater than 0"]),
        ({"train.optimizer": "adam"}, ["train.optimizer", "adamw, sgd"]),
        ({"train.momentum": 1.0}, ["train.momentum", "less than 1"]),
        ({"train.schedule": "one-cycle", "strategy.name": "continual"}, ["'one-cycle'", "streams of tasks", "'steps'"]),
        ({"train.schedule": "one-cycle", "data.tasks-per-client": 3}, ["'one-cycle'", "streams of tasks", "'steps'"]),
        ({"continual.ratios": "0.5,0.3"}, ["continual.ratios", "ascending"]),
        ({"packing.losses": "kd,amdd"}, ["packing.losses", "'amdd'", "edu-attention"]),
        ({"packing.losses": "kd,kd:2"}, ["packing.losses", "'kd' is there twice"]),
        ({"packing.losses": "kd:-1"}, ["packing.losses", "'-1'", "above 0"]),
        ({"packing.losses": "kd:nan"}, ["packing.losses", "'nan'"]),
        ({"packing.losses": ""}, ["packing.losses", "''", "kd, cosine"]),
        ({"packing.how": "mean"}, ["packing.how", "distil, ensemble, average", "block-union"]),
        ({"packing.data": "both"}, ["packing.data = 'both'", "packing.consent", "'child'"]),
        ({"packing.consent": "3;4"}, ["packing.consent", "'0,3,6'"]),
        ({"packing.data": "parent", "packing.consent": "3", "packing.distil-on": "labelled"}, ["'labelled'", "'parent'"]),
        ({"packing.weights": "ca-mkd", "packing.distil-on": "unlabelled"}, ["'ca-mkd'", "'unlabelled'", "'ebkd'"]),
        ({"packing.weights": "ca-mkd", "packing.data": "parent", "packing.consent": "all"}, ["'ca-mkd'", "'parent'"]),
        ({"packing.stop-epoch": 20}, ["packing.stop-epoch = 20", "packing.epochs = 20"]),
        ({"packing.losses": "amd", "packing.disjoint": "teacher-head"}, ["'teacher-head'", "'amd'"]),
        ({"packing.temperature": 0.0}, ["packing.temperature", "greater than 0"]),
        ({"train.learning-rate": float("nan")}, ["train.learning-rate", "nan"]),
    ],
)
def test_faults_name_key_value_and_what_is_allowed(flat, words):
    with pytest.raises(ConfigError) as raised:
        parse(flat)
    for word in words:
        assert word in str(raised.value)


def test_images_alone_set_no_limit_on_the_length_of_texts():
    dense = {"model.low-rank": "dense", "model.rank": 30}
    assert parse({**CIFAR, **dense}).data.grouping == "superclass"


def test_every_fault_is_listed_at_once():
    with pytest.raises(ConfigError) as raised:
        parse({"run.round": 3, "train.epochs": "two", "model.dim": -1})
    assert str(raised.value).count("\n  - ") == 3


def test_an_integer_is_a_valid_fraction_and_a_float_is_no_count():
    assert parse({"train.clip-norm": 1}).train.clip_norm == 1.0
    with pytest.raises(ConfigError):
        parse({"run.rounds": 2.0})


def test_toml_round_trip():
    changed = parse({"run.name": "a-b", "data.train-fraction": 0.2, "strategy.control": False})
    assert parse(flatten_mapping(tomllib.loads(to_toml(flatten(changed))))) == changed


def test_lists_become_comma_separated():
    assert flatten_mapping({"data": {"clients": [0, 3]}}) == {"data.clients": "0,3"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("run.rounds=3", 3), ("train.clip-norm=0.5", 0.5), ("strategy.control=false", False), ("data.clients=[1, 2]", "1,2")],
)
def test_overrides_are_typed(text, value):
    assert parse_override(text)[1] == value


def test_override_without_value():
    with pytest.raises(ConfigError, match="key=value"):
        parse_override("run.rounds")


def test_missing_config_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(ConfigError, match="simulations"):
        read_toml(tmp_path / "none.toml")


def test_not_toml(tmp_path):
    (tmp_path / "bad.toml").write_text("a = = b")
    with pytest.raises(ConfigError, match="not a TOML"):
        read_toml(tmp_path / "bad.toml")


def test_runs_root_order(monkeypatch, tmp_path):
    monkeypatch.setenv("BACKPACK_RUNS", str(tmp_path / "env"))
    assert config.runs_root(RunConfig()) == tmp_path / "env"
    assert config.runs_root(parse({"run.output-dir": str(tmp_path / "set")})) == tmp_path / "set"


def test_losses_have_their_own_weight_or_the_default():
    assert (
        weighted_losses("kd, amd:2.5") == {"kd": 1.0, "amd": 2.5} == parse({"packing.losses": "kd, amd:2.5"}).packing.weighted
    )
    assert all(weighted_losses(name) == {name: weight} for name, weight in DISTILL_WEIGHTS.items())


@pytest.mark.parametrize(("consent", "who"), [("", []), ("3, 1", [1, 3]), ("all", [0, 1, 2, 3]), ("13", [])])
def test_donors_consent_by_name(consent, who):
    assert [donor for donor in range(4) if parse({"packing.consent": consent}).packing.consents(donor)] == who


def test_spaces_between_names_are_no_part_of_them_and_other_strategies_pick_nothing():
    spaced = parse({**JOINER, "strategy.joiner-starts": "donor, latent", "strategy.joiner-also": "cka, updates"}).strategy
    assert (spaced.starts, spaced.picks) == (("donor", "latent"), ("updates", "cka"))
    assert (parse({}).strategy.starts, parse({}).strategy.picks) == ((), ())
    assert parse({"strategy.name": "late-joiner"}).strategy.picks == ()
