"""The ClientApp: routes each message to the client it means."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from config import PROJECT_ROOT, RunConfig, Scalar, parse
from strategies.protocol import (
    ADAPTIVE,
    ARRAYS,
    CARD,
    CONFIG,
    DONORS,
    FACTS,
    FEDWEIT,
    MANIFEST,
    METRICS,
    SCORERS,
    TEACHER,
    ClientInfo,
    Instruction,
    RunError,
    check_source,
    from_arrays,
    from_donors,
    to_arrays,
)
from strategies.teacher_card import TeacherCard

if TYPE_CHECKING:  # torch is imported with the first message, not with this module
    from client.learner import Learner
    from client.scoring import DonorError

Tensors = dict[str, np.ndarray]

OWN_PATHS = {
    "data-dir": ("data", "data_dir"),
    "vocab-file": ("data", "vocab_file"),
    "embedding-dir": ("model", "embedding_dir"),
    "pretrained-dir": ("clip", "pretrained_dir"),
}
"""Keys of the node config that win over a setting of the run: section and field."""

# A local SuperLink keeps the folder it was started in, and Ray puts it before this app on the path of its workers. If that
# folder has a ``client`` of its own (another checkout), step out of it before Ray starts.
if Path.cwd() != PROJECT_ROOT and (Path.cwd() / "client" / "app.py").exists():
    os.chdir(PROJECT_ROOT)

app = ClientApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Answer which of the wanted clients this node hosts, and how much data each has."""
    question = message.content.config_records[CONFIG]
    check_source(str(question["source_hash"]))
    config = _config(tuple(sorted(context.run_config.items())))
    check_folders(config, context)
    from client.device import choose_device
    from client.learner import cached_client
    from data_partition.datasets import serving
    from data_partition.streams import empty_classes
    from data_partition.subgroups import find_subgroup
    from data_partition.text import vocab_size
    from models import bert_embeddings, clip_files

    own = _own_data(config, context)
    device = choose_device(config.train, config.federation)
    hosted = [partition for partition in question["partition_ids"] if hosts(context, int(partition))]  # type: ignore[union-attr]
    lines = []
    for partition in hosted:
        tasks = [cached_client(own.data, int(partition), 0.0, task) for task in range(own.data.tasks_per_client)]
        group = find_subgroup(own.data, int(partition))
        if own.model.embedding_dir and group.modality == "text":
            bert_embeddings.inspect(own.model.embedding_dir, vocab_size(own.data), own.data.max_tokens)
        if own.clip.pretrained_dir and own.strategy.name == "comkd" and group.partition_id == own.clip.teacher:
            clip_files.inspect(own.clip.pretrained_dir)
        info = ClientInfo(
            group.partition_id,
            group.modality,
            group.group,
            group.domain_index,
            group.classes,
            num_train=sum(len(one.train) for one in tasks),
            num_val=sum(len(one.val) for one in tasks),
            num_test=sum(len(one.test) for one in tasks),
            bad_rows=tuple(
                f"{bad.item} ({bad.modality}): {bad.reason}"
                for bad in serving(own.data, group.modality).bad_rows(own.data, group.modality)
            ),
        )
        if len(tasks) > 1:
            warnings = tuple(f"task {index}: {told}" for index, task in enumerate(tasks) for told in empty_classes(task))
            info = dataclasses.replace(info, tasks=tuple(task.subgroup.classes for task in tasks), warnings=warnings)
        lines.append(info.to_json())
    return Message(RecordDict({CONFIG: ConfigRecord({"clients": lines, "device": str(device)})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one client and answer with its shared tensors, in the dtype of the wire."""
    from client import learner as work

    config, instruction, shared = _read(message, context)
    learner = _learner(config, context, instruction, shared, instruction.round)
    metrics = work.train(learner, shared)
    return _reply(message, metrics, {k: v.astype(config.strategy.wire_dtype) for k, v in learner.shared().items()})


@app.train("joint")
def train_joint(message: Message, context: Context) -> Message:
    """Train one trunk on the data of several clients; only where this node holds them all."""
    from client.joint import share_modules, train_jointly
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    if "data-dir" in context.node_config:
        raise RunError("joint training needs the data of all clients on one node: this node has its own data-dir")
    told = [dataclasses.replace(instruction, partition_id=int(part)) for part in instruction.partition_ids.split(",")]
    learners = [_learner(config, context, one, {}, one.round, private=True) for one in told]
    share_modules(learners, config.strategy.share, config.strategy.scope)
    folders = {one.partition_id: state_folder(config, context, one) for one in told}
    return _reply(message, train_jointly(config, learners, folders.__getitem__), {})


@app.train("task")
def train_task(message: Message, context: Context) -> Message:
    """Learn one task of a client's stream to its end; a donor that does not fit is named, and nothing is learned then."""
    from client.donors import build_on
    from client.scoring import DonorError, fetch
    from client.state import state_folder
    from client.stream import Stream, learn_task
    from client.stream_rounds import receive

    config, instruction, shared = _read(message, context)
    folder = state_folder(config, context, instruction)

    def prepare(stream: Stream) -> None:
        receive(stream, shared)
        build_on(stream, fetch(stream, *from_donors(message), folder))

    try:
        metrics, facts = learn_task(config, instruction, folder, prepare)
    except DonorError as error:
        return _refusal(message, instruction, error)
    except FloatingPointError as error:
        if not (named := from_donors(message)[0]):
            raise
        return _refusal(message, instruction, DonorError(named[0].partition_id, f"training on top of it diverges: {error}"))
    return _reply(message, metrics, {}, facts)


@app.train("pack")
def train_pack(message: Message, context: Context) -> Message:
    """Pack donors into the model of a client's task; a donor that does not fit is named, and nothing is learned then."""
    from client.pack_donors import pack_task
    from client.scoring import DonorError
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    folder, similarities = state_folder(config, context, instruction), message.content[DONORS].get("similarities", [])
    try:
        metrics, facts = pack_task(config, instruction, folder, *from_donors(message), similarities)  # type: ignore[arg-type]
    except DonorError as error:
        return _refusal(message, instruction, error)
    return _reply(message, metrics, {}, facts)


@app.train("round")
def train_round(message: Message, context: Context) -> Message:
    """Train one task of a client's stream for some rounds."""
    from client import weit_stream
    from client.state import state_folder
    from client.stream_rounds import train_rounds

    config, instruction, shared = _read(message, context)
    folder = state_folder(config, context, instruction)
    if instruction.method != FEDWEIT:
        return _reply(message, *train_rounds(config, instruction, folder, shared))
    records = {name: record for name, record in message.content.array_records.items() if name != ARRAYS}
    foreign = [from_arrays(records[name]) for name in sorted(records)]
    metrics, tensors, adaptive, facts = weit_stream.train_round(config, instruction, folder, shared, foreign)
    return _reply(message, metrics, tensors, facts, adaptive)


@app.train("teacher")
def train_teacher(message: Message, context: Context) -> Message:
    """Train a teacher."""
    from client.distilling import learn_teacher
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    return _reply(message, learn_teacher(config, instruction, state_folder(config, context, instruction)), {})


@app.query("teacher")
def tell_teacher(message: Message, context: Context) -> Message:
    """Give the client's teacher, or its manifest alone."""
    from client.distilling import publish
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    manifest, arrays = publish(config, instruction, state_folder(config, context, instruction))
    reply = _reply(message, {"partition-id": manifest.partition_id, "num-examples": manifest.num_train}, arrays)
    reply.content[MANIFEST] = ConfigRecord({"json": manifest.to_json()})
    return reply


@app.query("keep")
def keep(message: Message, context: Context) -> Message:
    """Keep a teacher for a student; one that does not fit is named, with the reason."""
    from client.distilling import keep as keep_teacher
    from client.scoring import DonorError
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    folder = state_folder(config, context, instruction)
    try:
        return _reply(message, keep_teacher(config, instruction, folder, *from_donors(message)), {})
    except DonorError as error:
        return _refusal(message, instruction, error)


@app.train("student")
def train_student(message: Message, context: Context) -> Message:
    """Train a student by the teachers that are kept here, or by none."""
    from client.distilling import learn_student
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    folder = state_folder(config, context, instruction)
    metrics, facts = learn_student(config, instruction, folder, from_donors(message)[0])
    return _reply(message, metrics, {}, facts)


@app.query("backbone")
def backbone(message: Message, context: Context) -> Message:
    """Give the backbone of the client's latest task, if it still is what was learned."""
    from client.donors import publish
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    manifest, arrays = publish(config, instruction, state_folder(config, context, instruction))
    reply = _reply(message, {"partition-id": manifest.partition_id, "num-examples": manifest.num_train}, arrays)
    reply.content[MANIFEST] = ConfigRecord({"json": manifest.to_json()})
    return reply


@app.query("sketch")
def sketch(message: Message, context: Context) -> Message:
    """Tell 2 KB of a client's latest model."""
    from client.sketching import tell
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    arrays, examples = tell(config, instruction, state_folder(config, context, instruction))
    return _reply(message, {"partition-id": instruction.partition_id, "num-examples": examples}, arrays)


@app.query("score")
def score(message: Message, context: Context) -> Message:
    """Score a donor; one that does not fit is named, with the reason, in place of scores."""
    from client.scoring import DonorError, score_donors
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    names = [str(name) for name in message.content.config_records[SCORERS]["names"]]  # type: ignore[union-attr]
    folder = state_folder(config, context, instruction)
    try:
        return _reply(message, score_donors(config, instruction, folder, *from_donors(message), names), {})
    except DonorError as error:
        return _refusal(message, instruction, error)


@app.query("compare")
def compare(message: Message, context: Context) -> Message:
    """Score all models that a client that joins late may start from."""
    from client.joining import score_models
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    names = [str(name) for name in message.content.config_records[SCORERS]["names"]]  # type: ignore[union-attr]
    folder = state_folder(config, context, instruction)
    return _reply(message, score_models(config, instruction, folder, *from_donors(message), names), {})


@app.train("clip")
def train_clip(message: Message, context: Context) -> Message:
    """Train the teacher of ComKD-CLIP; it stays here until it is asked for."""
    from client import comkd_teacher
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    return _reply(message, comkd_teacher.train(config, instruction, state_folder(config, context, instruction)), {})


@app.query("clip")
def tell_clip(message: Message, context: Context) -> Message:
    """Give the card of the teacher and, if the instruction names a share, its image branch and text features."""
    from client.comkd_teacher import publish
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    card, arrays = publish(config, instruction, state_folder(config, context, instruction))
    metrics = {"partition-id": card.partition_id, "num-examples": 1}
    reply = _reply(message, metrics, arrays if instruction.share else {})
    reply.content[CARD] = ConfigRecord({"json": card.to_json()})
    return reply


@app.train("clip_student")
def train_clip_student(message: Message, context: Context) -> Message:
    """Train a student of ComKD-CLIP on images without labels."""
    from client import comkd
    from client.state import state_folder

    config, instruction, sent = _read(message, context)
    folder = state_folder(config, context, instruction)
    return _reply(message, comkd.train(config, instruction, folder, _card(message), sent), {})


@app.evaluate("clip")
def evaluate_clip(message: Message, context: Context) -> Message:
    """Evaluate a teacher or student of ComKD-CLIP on base and on novel classes."""
    from client import comkd
    from client.state import state_folder

    config, instruction, sent = _read(message, context)
    folder = state_folder(config, context, instruction)
    return _reply(message, comkd.evaluate(config, instruction, folder, _card(message), sent), {})


@app.evaluate("tasks")
def evaluate_tasks(message: Message, context: Context) -> Message:
    """Evaluate every task that a client has learned so far."""
    from client import stream, weit_stream
    from client.state import state_folder

    config, instruction, _ = _read(message, context)
    evaluate = weit_stream.evaluate_tasks if instruction.method == FEDWEIT else stream.evaluate_tasks
    return _reply(message, evaluate(config, instruction, state_folder(config, context, instruction)), {})


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate one client's model, with the shared tensors if some came."""
    from client import learner as work

    config, instruction, shared = _read(message, context)
    config = config.of_teachers if instruction.method == TEACHER else config
    learner = _learner(config, context, instruction, shared, instruction.round + 1)
    return _reply(message, work.evaluate(learner), {})


def hosts(context: Context, partition_id: int) -> bool:
    """Say whether this node plays a client.

    A node with ``partition-id`` p and ``num-partitions`` n plays the clients p, p + n, p + 2n, …, so that a simulation with
    fewer nodes than clients still has them all. A node without ``num-partitions`` plays client p alone.

    Raises:
        RunError: the node has no ``partition-id``.
    """
    own, count = context.node_config.get("partition-id"), context.node_config.get("num-partitions", 0)
    if not isinstance(own, int) or not isinstance(count, int):
        raise RunError(f"this SuperNode's node config is {dict(context.node_config)}; expected --node-config 'partition-id=0'")
    return partition_id % count == own if count else partition_id == own


def check_folders(config: RunConfig, context: Context) -> None:
    """Refuse relative paths: they would lie in the unpacked app, a new folder for every version of the source.

    Raises:
        RunError: names the setting and the path.
    """
    run = {
        "run.output-dir": config.run.output_dir,
        "data.vocab-file": config.data.vocab_file,
        "model.embedding-dir": config.model.embedding_dir,
        "clip.pretrained-dir": config.clip.pretrained_dir,
    }
    node = {key: str(context.node_config.get(key, "")) for key in ("state-dir", *OWN_PATHS)}
    for key, folder in (run | node).items():
        if folder and not Path(folder).expanduser().is_absolute():
            raise RunError(f"{key} = '{folder}' is relative; expected an absolute path")


def _read(message: Message, context: Context) -> tuple[RunConfig, Instruction, Tensors]:
    instruction = Instruction.from_record(message.content.config_records[CONFIG])
    check_source(instruction.source_hash)
    if not hosts(context, instruction.partition_id):
        raise RunError(f"the server asks this node for client {instruction.partition_id}, which it does not host")
    config = _own_data(_config(tuple(sorted(context.run_config.items()))), context)
    arrays = message.content.array_records.get(ARRAYS, ArrayRecord())
    return config, instruction, from_arrays(arrays)


def _refusal(message: Message, instruction: Instruction, error: DonorError) -> Message:
    reply = _reply(message, {"partition-id": instruction.partition_id, "num-examples": 1}, {})
    reply.content[FACTS] = ConfigRecord({"reason": str(error), "donor": error.partition_id})
    return reply


def _card(message: Message) -> TeacherCard:
    return TeacherCard.from_json(str(message.content.config_records[CARD]["json"]))


@lru_cache(maxsize=8)
def _config(items: tuple[tuple[str, Scalar], ...]) -> RunConfig:
    return parse(dict(items))


def _own_data(config: RunConfig, context: Context) -> RunConfig:
    """Let ``--node-config 'data-dir="/path"'`` win over the run config: each lab machine has its files somewhere else."""
    for key, (section, name) in OWN_PATHS.items():
        if own := context.node_config.get(key):
            changed = getattr(config, section).model_copy(update={name: str(own)})
            config = config.model_copy(update={section: changed})
    return config


def _learner(
    config: RunConfig, context: Context, instruction: Instruction, shared: Tensors, for_round: int, private: bool = False
) -> Learner:
    from client.learner import make_learner
    from client.state import state_folder

    folder = state_folder(config, context, instruction)
    return make_learner(config, instruction, folder, shared, for_round, private)


def _reply(
    message: Message,
    metrics: Mapping[str, float | list[int] | list[float]],
    tensors: Tensors,
    facts: Sequence[str] = (),
    adaptive: Tensors | None = None,
) -> Message:
    content = RecordDict({METRICS: MetricRecord({**metrics})})
    if facts:
        content[FACTS] = ConfigRecord({"lines": list(facts)})
    if adaptive:
        content[ADAPTIVE] = to_arrays(adaptive)
    if tensors:
        content[ARRAYS] = to_arrays(tensors)
    return Message(content, reply_to=message)
