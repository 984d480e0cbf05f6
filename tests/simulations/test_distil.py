"""Teachers and students through the whole app: what travels, who learns by whom, refusals, resuming, shipped configs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from client import distilling
from client.scoring import DonorError
from config import parse, read_toml
from models.storage import load_record
from server.app import wanted_clients
from simulations import inprocess
from strategies import distil
from strategies.protocol import CONFIG, DONORS, Instruction, Manifest, RunError, digest, from_arrays
from tests.data_partition.series_trees import install_watch, write_watch
from tests.data_partition.trees import write_cifar10
from tests.simulations.helpers import facts, watch
from tests.simulations.test_continual import KilledError, die_at, of

CONFIGS = Path(__file__).resolve().parents[2] / "simulations"
SMALL = {
    "run.rounds": 1,
    "run.evaluate-every": 1,
    "data.dataset": "watch",
    "data.grouping": "subjects",
    "data.subjects-per-client": 2,
    "data.clients": "0,1,3",
    "data.train-fraction": 0.2,
    "data.unlabelled-fraction": 0.5,
    "data.window": 20,
    "data.step": 20,
    "model.name": "wrn-16-1",
    "model.width": 0.1,
    "model.dropout": 0.0,
    "train.batch-size": 64,
    "train.learning-rate": 5e-3,
    "strategy.name": "distil",
    "distil.teacher": "wrn-16-1",
    "distil.teacher-width": 0.25,
    "distil.teacher-epochs": 2,
    "distil.teacher-fraction": 1.0,
    "distil.sources": "others",
    "packing.epochs": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_watch(tmp_path_factory.mktemp("watch"), 120)


@pytest.fixture(autouse=True)
def _trusted(monkeypatch, folder):
    install_watch(monkeypatch, folder)


def walk(root: Path, **flat) -> Path:
    inprocess.run(parse({**SMALL, "run.output-dir": str(root), "run.name": "run", **flat}))
    return root / "run"


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def of_type(crossed, kind: str) -> list[tuple]:
    return [pair for pair in crossed if pair[0].metadata.message_type == kind]


def client_of(message) -> int:
    return message.content[CONFIG]["partition_id"]


def told_in(message) -> list[Manifest]:
    return [Manifest.from_json(line) for line in message.content[DONORS]["manifests"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, folder):
    """One small run of three clients, and every message that crossed in it."""
    with pytest.MonkeyPatch.context() as patch:
        install_watch(patch, folder)
        crossed = watch(patch)
        return walk(tmp_path_factory.mktemp("distil")), crossed


def test_each_teacher_is_asked_for_once_and_travels_once_to_each_target(finished):
    _, crossed = finished
    assert [client_of(message) for message, _ in of_type(crossed, "query.teacher")] == [0, 1, 3]
    sent = {client_of(message): from_arrays(reply.content["arrays"]) for message, reply in of_type(crossed, "query.teacher")}
    handed = []
    for message, _ in of_type(crossed, "query.keep"):
        (manifest,) = told_in(message)
        ((name, record),) = message.content.array_records.items()
        assert name == f"{DONORS}-{digest(sent[manifest.partition_id])}"
        assert digest(from_arrays(record)) == manifest.sha256
        handed.append((manifest.partition_id, client_of(message)))
    assert handed == [(0, 1), (0, 3), (1, 0), (1, 3), (3, 0), (3, 1)]  # one teacher after the other
    taught = [pair for pair in of_type(crossed, "train.student") if pair[0].content[CONFIG]["arm"] == "student"]
    assert {client_of(m): [one.partition_id for one in told_in(m)] for m, _ in taught} == {0: [1, 3], 1: [0, 3], 3: [0, 1]}
    for kind in ("train.teacher", "train.student", "evaluate"):
        assert not any(m.content.array_records or r.content.array_records for m, r in of_type(crossed, kind))


def test_the_server_keeps_no_weights(finished):
    folder, crossed = finished
    came: set[str] = set()
    for message, reply in crossed:
        if message.metadata.message_type == "query.teacher":
            came = {f"{DONORS}-{digest(from_arrays(reply.content['arrays']))}"}
        assert set(message.content.array_records) <= came  # that of the donor that was asked last
    assert not [path for path in (folder / "checkpoints").rglob("*.safetensors") if path.stat().st_size > 400]


def test_the_control_has_the_same_steps_and_the_student_sees_more(finished):
    folder, _ = finished
    events = facts(folder)
    steps = {arm: {e["client"]: e["steps"] for e in of(events, "train", arm=arm)} for arm in ("scratch", "student")}
    assert steps["scratch"] == steps["student"]
    for event in of(events, "train", arm="student"):
        teacher = next(e for e in of(events, "train", arm="teacher") if e["client"] == event["client"])
        assert 0 < event["num_examples"] < event["unlabelled"] < teacher["num_examples"]
    for event in of(events, "packed", arm="student"):
        assert event["effective_teachers"] == pytest.approx(2.0)
        assert len(event["agreement"]) == 2
        assert set(event["losses"]) == {"cross-entropy", "kd"}
    assert all(set(event["losses"]) == {"cross-entropy"} for event in of(events, "packed", arm="scratch"))
    own = load_record(folder / "clients" / "000" / "student" / "round-0001")[0]
    alone = load_record(folder / "clients" / "000" / "scratch" / "round-0001")[0]
    assert own.keys() == alone.keys()
    assert not np.array_equal(own["head.classifier.weight"], alone["head.classifier.weight"])


def test_results_have_the_arms_and_paired_differences(finished):
    folder, _ = finished
    outcome, events = results_of(folder), facts(folder)
    tested = {
        arm: {e["client"]: e["balanced_accuracy"] for e in of(events, "evaluate", arm=arm, split="test")}
        for arm in ("teacher", "scratch", "student")
    }
    for row in outcome["clients"]:
        assert row["accuracy"] == tested["student"][row["client"]]
        assert row["control"] == tested["scratch"][row["client"]]
        assert row["bytes"] > 0
    found = outcome["distillation"]
    for row in found["clients"]:
        assert row["teacher"] == pytest.approx(np.mean([tested["teacher"][one] for one in row["teachers"]]))
    gains = [tested["student"][client] - tested["scratch"][client] for client in (0, 1, 3)]
    assert found["student_over_scratch"]["mean"] == pytest.approx(np.mean(gains))
    assert found["student_over_scratch"]["deviation"] == pytest.approx(np.std(gains, ddof=1))


def test_the_clients_own_teacher_does_not_travel(tmp_path, monkeypatch):
    crossed = watch(monkeypatch)
    folder = walk(tmp_path, **{"distil.sources": "own", "data.clients": "0,1", "distil.augment": "student"})
    assert not any(m.content.array_records or r.content.array_records for m, r in crossed)
    assert {e["client"]: e["teachers"] for e in of(facts(folder), "taught")} == {0: [0], 1: [1]}
    assert results_of(folder)["bytes"] == 0


def test_a_number_of_teachers_is_drawn_by_seed(tmp_path):
    def drawn(**flat) -> dict:
        config = parse({**SMALL, "distil.teachers": 1, **flat})
        clients = {n: dataclasses.make_dataclass("C", ["partition_id", "modality"])(n, "series") for n in range(8)}
        job = dataclasses.make_dataclass("J", ["config", "mailbox"])(
            config, dataclasses.make_dataclass("M", ["clients"])(clients)
        )
        return {n: distil.sources(job, one) for n, one in clients.items()}  # type: ignore[arg-type]

    first = drawn()
    assert all(len(found) == 1 and found != [own] for own, found in first.items())
    assert first == drawn()
    assert first != drawn(**{"run.seed": 1})
    assert drawn(**{"distil.sources": "own"}) == {n: [n] for n in range(8)}
    assert all(
        own in found and len(found) == 8 for own, found in drawn(**{"distil.sources": "all", "distil.teachers": 0}).items()
    )


def test_a_teacher_is_refused_by_the_server_or_by_a_target_with_the_reason(tmp_path, monkeypatch):
    publish, ask_for = distilling.publish, distil.ask_for

    def lie(config, told, folder):
        manifest, arrays = publish(config, told, folder)
        return (dataclasses.replace(manifest, sha256="f" * 64) if told.partition_id == 0 else manifest), arrays

    def damage(job, donor, share):
        manifest, arrays = ask_for(job, donor, share) or (None, None)
        if donor.partition_id == 1 and arrays is not None:
            changed = from_arrays(arrays)
            changed["head.classifier.bias"] = changed["head.classifier.bias"] + 1
            arrays = distil.to_arrays(changed)
        return None if manifest is None else (manifest, arrays)

    monkeypatch.setattr(distilling, "publish", lie)
    monkeypatch.setattr(distil, "ask_for", damage)
    folder = walk(tmp_path)
    refused = {(e["client"], e.get("target")): e["reason"] for e in of(facts(folder), "refused")}
    assert set(refused) == {(0, None), (1, 0), (1, 3)}
    assert "the manifest says client 0" in refused[0, None]
    assert "expected" in refused[1, 3]
    assert "as in the manifest" in refused[1, 3]
    assert {e["client"]: e["teachers"] for e in of(facts(folder), "taught")} == {0: [3], 1: [3]}  # 3 had none left
    assert [row["client"] for row in results_of(folder)["clients"]] == [0, 1]


def test_what_would_teach_noise_is_refused_before_training_and_nobody_left_is_an_error(tmp_path, monkeypatch):
    """Maps of four places have no quarters to compare."""
    small = {"data.window": 4, "data.step": 60, "data.clients": "0,1", "run.evaluate-every": 0, "packing.losses": "amd-local"}
    with pytest.raises(RunError, match="no client has a teacher to learn from"):
        walk(tmp_path, **small)
    assert "compares how positions differ" in of(facts(tmp_path / "run"), "refused")[0]["reason"]


@pytest.mark.parametrize(
    ("scale", "shape", "reason"),
    [(1e30, None, "are NaN or infinite"), (1.0, (3,), r"has shape \(3,\), expected"), (1.0, None, "")],
)
def test_a_target_asks_a_teacher_before_it_keeps_it(finished, scale, shape, reason):
    folder, _ = finished
    told = Instruction(0, "run", json.loads((folder / "manifest.json").read_text())["token"], "student", "")
    config, own = parse(SMALL), folder / "clients" / "000" / "student"
    kept = next(path for path in sorted((own.parent / DONORS).glob("*.safetensors")))
    arrays, said = load_record(kept.with_suffix(""))
    name = "head.classifier.weight"
    arrays = {**arrays, name: (arrays[name] * np.float32(scale)).astype(np.float32)}
    if shape:
        arrays[name] = np.zeros(shape, np.float32)
    changed = {n: value * np.float32(scale) if n.endswith("conv1.weight") else value for n, value in arrays.items()}
    manifest = dataclasses.replace(Manifest.from_json(said["manifest"]), sha256=digest(changed))
    if not reason:
        assert distilling.keep(config, told, own, [manifest], {manifest.sha256: changed})["num-examples"] > 0
        return
    with pytest.raises(DonorError, match=reason) as refused:
        distilling.keep(config, told, own, [manifest], {manifest.sha256: changed})
    assert refused.value.partition_id == manifest.partition_id
    assert not (own.parent / DONORS / f"{manifest.sha256}.json").exists()


@pytest.mark.parametrize("fatal", [2, 5])
def test_killed_in_any_arm_it_ends_the_same(finished, fatal, tmp_path, monkeypatch):
    """Of the calls 1 to 3 are of the arm scratch, 4 to 6 of students; teachers are not trained again."""
    revive = die_at(monkeypatch, distilling, "learn_student", fatal)
    with pytest.raises(KilledError):
        walk(tmp_path)
    revive()
    trained = watch(monkeypatch)
    whole, resumed = finished[0], walk(tmp_path, **{"run.resume": True})
    assert not of_type(trained, "train.teacher")
    assert len(of_type(trained, "query.teacher")) == 3
    assert results_of(resumed)["distillation"] == results_of(whole)["distillation"]
    for arm in ("teacher", "scratch", "student"):
        path = Path("clients") / "003" / arm / "round-0001.safetensors"
        assert (whole / path).read_bytes() == (resumed / path).read_bytes()


def test_killed_in_the_teachers_arm_it_ends_the_same(finished, tmp_path, monkeypatch):
    revive = die_at(monkeypatch, distilling, "learn_teacher", 2)
    with pytest.raises(KilledError):
        walk(tmp_path)
    revive()
    resumed = walk(tmp_path, **{"run.resume": True})
    assert results_of(resumed)["distillation"] == results_of(finished[0])["distillation"]


def test_the_best_validation_is_kept_where_it_is_not_the_last(tmp_path):
    """At a constant rate, the best of four epochs is the last of fewer."""
    flat = {**SMALL, "train.batch-size": 16, "train.learning-rate": 0.03, "train.schedule": "constant"}

    def learned(checkpoint: str, epochs: int) -> tuple[dict, str]:
        told = Instruction(0, "run", "token", "teacher", "", epochs=epochs, train_fraction=1.0)
        folder = tmp_path / f"{checkpoint}-{epochs}"
        found = distilling.learn_teacher(parse({**flat, "packing.checkpoint": checkpoint}), told, folder)
        arrays, kept = load_record(folder / "round-0001")
        assert kept["validation"] == found["validation"]
        return found, digest(arrays)

    best, kept = learned("best-validation", 4)
    lasts = [learned("last", epochs) for epochs in (1, 2, 3, 4)]
    first = max(range(4), key=lambda place: lasts[place][0]["validation"])
    assert first < 3
    assert kept == lasts[first][1] != lasts[3][1]
    assert best["validation"] == lasts[first][0]["validation"] > lasts[3][0]["validation"]
    assert best["steps"] == lasts[3][0]["steps"]


@pytest.mark.parametrize("name", ["kd", "eskd", "amd", "multiteacher"])
def test_shipped_configs_of_wearables_run(name, tmp_path):
    flat = read_toml(CONFIGS / f"wearable_{name}.toml")
    small = {
        "data.clients": "0,2",
        "data.window": 20,
        "data.step": 20,
        "distil.teacher-epochs": 1,
        "distil.teacher-width": 1.0 if flat["distil.teacher"] == "same" else 0.1,
        "packing.epochs": 1,
        "model.width": 0.1,
        "train.batch-size": 32,
    }
    found = results_of(walk_as_shipped(tmp_path, flat, small))["distillation"]
    expected = {0: [2], 2: [0]} if name == "multiteacher" else {0: [0], 2: [2]}
    assert {row["client"]: row["teachers"] for row in found["clients"]} == expected


@pytest.mark.parametrize("name", ["resnet18", "amd"])
def test_shipped_configs_of_cifar10_run_on_official_files(name, tmp_path):
    data_dir = write_cifar10(tmp_path / "data")
    flat = read_toml(CONFIGS / f"cifar10_{name}.toml")
    small = {"run.rounds": 1, "data.data-dir": str(data_dir), "model.width": 1 / 256, "train.batch-size": 64}
    if name == "amd":
        small |= {"distil.teacher-width": 1 / 100, "distil.teacher-epochs": 1, "packing.epochs": 1}
    else:
        small |= {"train.epochs": 1}
    outcome = results_of(walk_as_shipped(tmp_path, flat, small))
    assert [(row["client"], row["classes"]) for row in outcome["clients"]] == [(0, 10)]
    if name == "amd":
        packed = of(facts(tmp_path / "run"), "packed", arm="student")
        assert set(packed[0]["losses"]) == {"cross-entropy", "kd", "amd", "amd-local"}


def test_the_constants_of_amd_are_those_of_the_paper():
    config, plain = (parse(read_toml(CONFIGS / f"cifar10_{name}.toml")) for name in ("amd", "resnet18"))
    assert config.packing.weighted == {"kd": 0.9, "amd": 16.0, "amd-local": 4.0}
    assert (config.packing.cross_entropy, config.packing.temperature) == (0.1, 4.0)
    assert config.packing.epochs == config.distil.teacher_epochs == plain.run.rounds * plain.train.epochs == 200
    same = {"epochs": 1, "restart_optimizer": True, "warmup": 0.0}
    assert config.train.model_copy(update=same) == plain.train.model_copy(update=same)


def walk_as_shipped(root: Path, flat: dict, small: dict) -> Path:
    inprocess.run(parse({**flat, **small, "run.output-dir": str(root), "run.name": "run"}))
    return root / "run"


def test_a_teacher_for_images_is_not_for_texts():
    config = parse({"strategy.name": "distil", "distil.teacher": "lenet5", "data.clients": "0,6"})
    with pytest.raises(RunError, match=r"'lenet5' takes images, and the clients \[6\] have texts"):
        wanted_clients(config)
    assert wanted_clients(parse({"strategy.name": "distil", "distil.teacher": "lenet5", "data.clients": "0,1"})) == [0, 1]
