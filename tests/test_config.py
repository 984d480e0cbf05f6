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
from tests.settings import CIFAR, CUB, DEVICES, DISTIL, JOINER, OXFORD

ROOT = Path(__file__).resolve().parent.parent


def test_pyproject_defaults_equal_the_model():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert flatten_mapping(pyproject["tool"]["flwr"]["app"]["config"]) == flatten(RunConfig())


def test_pyproject_has_no_legacy_federations():
    assert "federations" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]


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
