import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client.seeding import seed_for
from client.state import load_state, save_state, state_folder
from config import parse
from models.storage import rounds_on_disk
from strategies.protocol import Instruction


def context(**node_config):
    return Context(run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config={})


def told(run_name="run", arm="control"):
    return Instruction(3, run_name, "token", arm, "hash")


def save(folder, number, token="token"):
    save_state(folder, token, number, {"w": np.full(2, number, np.float32)})


def test_the_newest_state_before_a_round_is_loaded(tmp_path):
    assert load_state(tmp_path, "token", 1) == {}
    for number in (1, 2, 3):
        save(tmp_path, number)
    assert load_state(tmp_path, "token", 4)["w"].tolist() == [3, 3]
    assert load_state(tmp_path, "token", 3)["w"].tolist() == [2, 2]


def test_two_rounds_are_kept_so_that_the_last_can_be_done_again(tmp_path):
    for number in (1, 2, 5, 9):
        save(tmp_path, number)
    assert rounds_on_disk(tmp_path) == [5, 9]


def test_state_of_an_earlier_run_of_the_same_name_is_not_used(tmp_path):
    save(tmp_path, 1, token="earlier")
    assert load_state(tmp_path, "token", 2) == {}
    save(tmp_path, 2)
    assert load_state(tmp_path, "token", 3)["w"].tolist() == [2, 2]


def test_doing_a_round_again_drops_what_came_after_it(tmp_path):
    for number in (4, 5):
        save(tmp_path, number)
    save(tmp_path, 4)
    assert rounds_on_disk(tmp_path) == [4]


def test_state_lies_in_the_run_folder_or_where_the_node_says(tmp_path):
    config = parse({"run.output-dir": str(tmp_path / "runs")})
    assert state_folder(config, context(), told()) == tmp_path / "runs" / "run" / "clients" / "003" / "control"
    own = state_folder(config, context(**{"state-dir": str(tmp_path / "own")}), told())
    assert own == tmp_path / "own" / "run" / "clients" / "003" / "control"


@pytest.mark.parametrize("name", ["../other", "a/b", "", ".hidden", "a\\b", "a b"])
def test_the_server_cannot_leave_the_root(tmp_path, name):
    config = parse({"run.output-dir": str(tmp_path)})
    for instruction in (told(run_name=name), told(arm=name)):
        with pytest.raises(ValueError, match="the server sent the name"):
            state_folder(config, context(), instruction)


def test_seeds_differ_in_every_argument():
    seeds = {seed_for(*args) for args in ((0, 1, 2, "a"), (1, 1, 2, "a"), (0, 2, 2, "a"), (0, 1, 3, "a"), (0, 1, 2, "b"))}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
