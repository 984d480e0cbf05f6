"""The ClientApp: routes each message to the client it means.

Here are the messages that most strategies send; those of some are in donor_messages.py and clip_messages.py.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import clip_messages, donor_messages
from client.messages import Tensors, answer, check_folders, hosts, own_data, parsed, read, refusal
from config import PROJECT_ROOT, RunConfig
from strategies.protocol import (
    ARRAYS,
    CONFIG,
    FEDWEIT,
    TEACHER,
    ClientInfo,
    Instruction,
    RunError,
    check_source,
    from_arrays,
    from_donors,
)

if TYPE_CHECKING:  # torch is imported with the first message, not with this module
    from client.learner import Learner

# A local SuperLink keeps the folder it was started in, and Ray puts it before this app on the path of its workers. If that
# folder has a ``client`` of its own (another checkout), step out of it before Ray starts.
if Path.cwd() != PROJECT_ROOT and (Path.cwd() / "client" / "app.py").exists():
    os.chdir(PROJECT_ROOT)

app = ClientApp()
donor_messages.register(app)
clip_messages.register(app)


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Answer which of the wanted clients this node hosts, and how much data each has."""
    question = message.content.config_records[CONFIG]
    check_source(str(question["source_hash"]))
    config = parsed(tuple(sorted(context.run_config.items())))
    check_folders(config, context)
    from client.device import choose_device
    from client.learner import cached_client
    from data_partition.datasets import serving
    from data_partition.streams import empty_classes
    from data_partition.subgroups import find_subgroup
    from data_partition.text import vocab_size
    from models import bert_embeddings, clip_files

    own = own_data(config, context)
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

    config, instruction, shared = read(message, context)
    learner = _learner(config, context, instruction, shared, instruction.round)
    metrics = work.train(learner, shared)
    return answer(message, metrics, {k: v.astype(config.strategy.wire_dtype) for k, v in learner.shared().items()})


@app.train("joint")
def train_joint(message: Message, context: Context) -> Message:
    """Train one trunk on the data of several clients; only where this node holds them all."""
    from client.joint import share_modules, train_jointly
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    if "data-dir" in context.node_config:
        raise RunError("joint training needs the data of all clients on one node: this node has its own data-dir")
    told = [dataclasses.replace(instruction, partition_id=int(part)) for part in instruction.partition_ids.split(",")]
    learners = [_learner(config, context, one, {}, one.round, private=True) for one in told]
    share_modules(learners, config.strategy.share, config.strategy.scope)
    folders = {one.partition_id: state_folder(config, context, one) for one in told}
    return answer(message, train_jointly(config, learners, folders.__getitem__), {})


@app.train("task")
def train_task(message: Message, context: Context) -> Message:
    """Learn one task of a client's stream to its end; a donor that does not fit is named, and nothing is learned then."""
    from client.donors import build_on
    from client.scoring import DonorError, fetch
    from client.state import state_folder
    from client.stream import Stream, learn_task
    from client.stream_rounds import receive

    config, instruction, shared = read(message, context)
    folder = state_folder(config, context, instruction)

    def prepare(stream: Stream) -> None:
        receive(stream, shared)
        build_on(stream, fetch(stream, *from_donors(message), folder))

    try:
        metrics, facts = learn_task(config, instruction, folder, prepare)
    except DonorError as error:
        return refusal(message, instruction, error)
    except FloatingPointError as error:
        if not (named := from_donors(message)[0]):
            raise
        return refusal(message, instruction, DonorError(named[0].partition_id, f"training on top of it diverges: {error}"))
    return answer(message, metrics, {}, facts)


@app.train("round")
def train_round(message: Message, context: Context) -> Message:
    """Train one task of a client's stream for some rounds."""
    from client import weit_stream
    from client.state import state_folder
    from client.stream_rounds import train_rounds

    config, instruction, shared = read(message, context)
    folder = state_folder(config, context, instruction)
    if instruction.method != FEDWEIT:
        return answer(message, *train_rounds(config, instruction, folder, shared))
    records = {name: record for name, record in message.content.array_records.items() if name != ARRAYS}
    foreign = [from_arrays(records[name]) for name in sorted(records)]
    metrics, tensors, adaptive, facts = weit_stream.train_round(config, instruction, folder, shared, foreign)
    return answer(message, metrics, tensors, facts, adaptive)


@app.evaluate("tasks")
def evaluate_tasks(message: Message, context: Context) -> Message:
    """Evaluate every task that a client has learned so far."""
    from client import stream, weit_stream
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    evaluate = weit_stream.evaluate_tasks if instruction.method == FEDWEIT else stream.evaluate_tasks
    return answer(message, evaluate(config, instruction, state_folder(config, context, instruction)), {})


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate one client's model, with the shared tensors if some came."""
    from client import learner as work

    config, instruction, shared = read(message, context)
    config = config.of_teachers if instruction.method == TEACHER else config
    learner = _learner(config, context, instruction, shared, instruction.round + 1)
    return answer(message, work.evaluate(learner), {})


def _learner(
    config: RunConfig, context: Context, instruction: Instruction, shared: Tensors, for_round: int, private: bool = False
) -> Learner:
    from client.learner import make_learner
    from client.state import state_folder

    folder = state_folder(config, context, instruction)
    return make_learner(config, instruction, folder, shared, for_round, private)
