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
from data_partition.subgroups import subgroups
from simulations.runner import read_federation

ROOT = Path(__file__).resolve().parent.parent
ACROSS = {"selection.across": True}
PAIRED = {"strategy.name": "backpack", "strategy.scope": "modality", "selection.candidate": "paired"}
CIFAR = {"data.dataset": "cifar100", "data.grouping": "superclass"}
CUB = {"data.dataset": "cub", "data.grouping": "seed"}
OXFORD = {"data.dataset": "oxford102", "data.grouping": "seed"}
DEVICES = {"data.partitioner": "iid", "data.devices-per-group": 3}
WATCH = {"data.dataset": "watch", "data.grouping": "subjects"}
DISTIL = {**WATCH, "strategy.name": "distil", "model.name": "wrn-16-1"}
LAST = {"data.train-on-validation": True}
PATHOLOGICAL = {**DEVICES, "data.partitioner": "pathological"}


def test_pyproject_defaults_equal_the_model():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert flatten_mapping(pyproject["tool"]["flwr"]["app"]["config"]) == flatten(RunConfig())


def test_pyproject_has_no_legacy_federations():
    assert "federations" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]


JOINER = {"strategy.name": "late-joiner", "strategy.joiner-starts": "donor"}


@pytest.mark.parametrize("path", sorted((ROOT / "simulations").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path):
    parse(read_toml(path))


@pytest.mark.parametrize("path", sorted((ROOT / "simulations" / "federations").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_federations_suit_every_simulation(path):
    machine = read_federation(path)
    assert "federation.clients" not in machine
    for simulation in (ROOT / "simulations").glob("*.toml"):
        config = parse(read_toml(simulation) | machine)
        assert config.federation.gpus_per_client == machine["federation.gpus-per-client"]


def test_a_federation_file_changes_nothing_that_a_result_rests_on(tmp_path):
    (tmp_path / "mine.toml").write_text("[federation]\ncpus-per-client = 2\n[train]\nthreads = 2\nepochs = 1\n")
    with pytest.raises(ConfigError, match=r"mine\.toml has train\.epochs: a federation file has"):
        read_federation(tmp_path / "mine.toml")


REAL = {  # clients, classes of each, image side, tokens of a text (24: there are no texts)
    "cifar100": (20, 5, 32, 24),
    "coco": (30, 4, 64, 128),
    "cub": (54, 5, 224, 128),
    "n24news": (12, 3, 224, 128),
    "oxford102": (12, 4, 64, 128),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("strategy", ["linceiver", "backpack"])
def test_real_data_sets_have_the_sizes_of_pick_a_back(name, strategy):
    config = parse(read_toml(ROOT / "simulations" / f"{name}_{strategy}.toml"))
    number, classes, side, tokens = REAL[name]
    everyone = subgroups(config.data)
    assert (len(everyone), config.federation.clients) == (number, number)
    assert {len(one.classes) for one in everyone} == {classes}
    assert (config.data.dataset, config.data.image_side, config.data.max_tokens) == (name, side, tokens)
    assert strategy in config.strategy.name or config.strategy.name == "shared-fedavg"


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
        ({"data.unlabelled-fraction": 0.3}, ["data.unlabelled-fraction", "'distil'", "'pack'"]),
        ({**CIFAR, "data.unlabelled-fraction": 0.5}, ["data.unlabelled-fraction", "watch", "cifar100"]),
        ({**DISTIL, "distil.teacher-width": 2.0}, ["distil.teacher-width = 2.0", "'same'"]),
        ({**DISTIL, "distil.teacher": "wrn-16-2"}, ["distil.teacher", "wrn-16-2"]),
        ({**DISTIL, "distil.teacher": "resnet18"}, ["distil.teacher = 'resnet18'", "takes images", "series"]),
        ({**DISTIL, "train.schedule": "one-cycle"}, ["train.schedule = 'one-cycle'", "'distil'"]),
        ({**DISTIL, "packing.how": "ties"}, ["packing.how = 'ties'", "'distil'"]),
        ({**DISTIL, "packing.weights": "similarity"}, ["'similarity'", "other weights"]),
        ({**DISTIL, "packing.losses": "edu-attention"}, ["edu-attention", "prototypes"]),
        ({**DISTIL, "packing.data": "both", "packing.consent": "all"}, ["packing.data = 'both'", "'child'"]),
        ({**DISTIL, **LAST, "packing.checkpoint": "best-validation"}, ["'best-validation'", "was trained on", "'last'"]),
        ({**WATCH, **LAST, "strategy.name": "backpack"}, ["data.train-on-validation", "'backpack'", "'distil'"]),
        ({**WATCH, **LAST, "strategy.name": "local", "data.tasks-per-client": 1, **CIFAR}, ["is for series", "cifar100"]),
        ({"strategy.name": "distil", "model.adaptive-k": "prefix"}, ["model.adaptive-k = 'prefix'", "'none'"]),
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
        ({"data.dataset": "cifar"}, ["data.dataset", "'cifar'", "emojipairs, cifar100, cifar10"]),
        ({**CUB, "data.grouping": "tri"}, ["'tri'", "'cub'", "seed, all"]),
        ({**CUB, "data.tasks-per-client": 2}, ["= 2", "5 classes", "one of 1"]),
        ({**CUB, "data.label-rule": "largest-area"}, ["data.label-rule = 'largest-area'", "coco", "'cub'", "'first'"]),
        ({**CUB, "data.columns": "image=img"}, ["data.columns = 'image=img'", "hf", "'cub'"]),
        ({**CUB, "data.partitioner": "iid"}, ["'iid'", "data.devices-per-group = 1", "2 or more"]),
        ({**CUB, "data.devices-per-group": 2}, ["'one'", "data.devices-per-group = 2"]),
        ({**CUB, "data.alpha": 0.1}, ["data.alpha = 0.1", "'dirichlet'", "'one'", "0.5"]),
        ({**CUB, **DEVICES, "data.classes-per-device": 2}, ["data.classes-per-device = 2", "'pathological'", "'iid'"]),
        ({**CUB, **DEVICES, "data.partitioner": "domain"}, ["'domain'", "'cub'", "folder and hf"]),
        ({**CUB, **DEVICES, "data.concepts": "shared"}, ["data.concepts = 'shared'", "'iid'", "'disjoint'"]),
        ({**CUB, **PATHOLOGICAL, "data.classes-per-device": 6}, ["data.classes-per-device = 6", "5 classes"]),
        ({**OXFORD, **PATHOLOGICAL, "data.tasks-per-client": 2}, ["data.tasks-per-client = 2", "'pathological'"]),
        ({**CUB, "strategy.name": "late-joiner"}, ["strategy.joiner-fold = 'domain'", "'seed'", "'client'"]),
        ({**CUB, "model.name": "lenet5"}, ["'lenet5'", "'cub'", "224", "data.image-size = 32"]),
        ({**CUB, "model.patch-size": 5}, ["model.patch-size = 5", "224 pixels"]),
        ({**CUB, "data.image-size": 30}, ["model.patch-size = 4", "30 pixels"]),
        ({**CUB, "data.max-bad-fraction": 1.5}, ["data.max-bad-fraction", "1.5"]),
        ({"data.partitioner": "iid", "data.devices-per-group": 2}, ["data.partitioner = 'iid'", "cub", "'emojipairs'"]),
        ({"data.image-size": 64}, ["data.image-size = 64", "'emojipairs'", "leave it at 0"]),
        ({**CIFAR, "data.modalities": "text"}, ["data.modalities = 'text'", "'cifar100'", "'both'"]),
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
        ({"data.dataset": "watch"}, ["'tri'", "'watch'", "subjects, all"]),
        ({"data.window": 50}, ["data.window = 50", "for series", "'emojipairs'", "100"]),
        ({"data.also": "pamap2"}, ["data.also", "none, watch"]),
        ({**WATCH, "data.also": "watch"}, ["data.also = 'watch'", "'watch'", "'none'"]),
        ({"data.also": "watch", "data.tasks-per-client": 2}, ["data.also = 'watch'", "= 2", "one task"]),
        ({**WATCH, "data.channels": "ax,bx"}, ["data.channels = 'ax,bx'", "'watch'", "ax, ay, az, wx, wy, wz"]),
        ({**WATCH, "data.channels": "ax,ax"}, ["data.channels = 'ax,ax'", "different ones"]),
        ({**WATCH, "data.window": 50}, ["model.series-patch = 4", "data.window = 50"]),
        ({**WATCH, "data.max-tokens": 30}, ["data.max-tokens = 30", "'watch'", "series alone"]),
        ({**WATCH, "data.modalities": "image"}, ["data.modalities = 'image'", "series alone", "'both'"]),
        ({**WATCH, "data.tasks-per-client": 3}, ["= 3", "7 classes", "one of 1"]),
        ({**WATCH, "model.embedding-dir": "/bert"}, ["model.embedding-dir = '/bert'", "series alone"]),
        ({**WATCH, "model.name": "resnet18"}, ["'resnet18' takes images", "'watch'", "wrn-16-1"]),
        ({**WATCH, "model.name": "wrn-16-1", "strategy.share": "attention"}, ["'attention'", "'wrn-16-1'"]),
        ({**WATCH, "model.low-rank": "dense", "model.rank": 30}, ["model.rank = 30", "25 patches", "series"]),
        ({**WATCH, "data.partitioner": "iid"}, ["data.partitioner = 'iid'", "'watch'"]),
        ({**WATCH, "strategy.name": "backpack", "selection.pairing": "gradient"}, ["'gradient'", "series", "'random'"]),
        ({"data.series-augment": "cut"}, ["data.series-augment", "removal, noise, shift, mix1, mix2"]),
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


def test_a_missing_modality_sets_no_limit_on_its_inputs():
    dense = {"model.low-rank": "dense", "model.rank": 30, "data.max-tokens": 24}
    assert parse({**OXFORD, **dense, "data.modalities": "image"}).data.modalities == "image"
    with pytest.raises(ConfigError, match="24 tokens"):
        parse({**OXFORD, **dense, "data.modalities": "text"})


def test_devices_of_a_group_are_its_domains_where_one_joins_late():
    late = {"strategy.name": "late-joiner", "data.train-fraction": 1.0}
    assert parse({**CUB, **DEVICES, **late}).data.num_domains == 3


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


def test_settings_of_teachers_are_those_of_students_but_for_model_and_augmentation():
    config = parse({**DISTIL, "distil.teacher": "wrn-16-3", "distil.teacher-width": 2.0, "distil.augment": "student"})
    assert (config.of_teachers.model.name, config.of_teachers.model.width) == ("wrn-16-3", 2.0)
    assert (config.of_teachers.data.augment, config.data.augment) == (False, True)
    assert config.of_teachers.train == config.train
    both = parse({**DISTIL, "distil.augment": "both"})
    assert both.of_teachers.model == both.model
    assert both.of_teachers.data == both.data
    off = parse({**DISTIL, "distil.augment": "both", "data.augment": False})
    assert not off.of_teachers.data.augment
