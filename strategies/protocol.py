"""The wire protocol: what crosses between the server and a client, and nothing else.

=====================  =========  ==================================  ==============================
Partition ids, not node ids, name clients: a node id is a random number that differs between runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from config import PROJECT_ROOT

DESCRIBE = "query.describe"
TRAIN = "train"
TRAIN_JOINT = "train.joint"
TRAIN_TASK = "train.task"
TRAIN_PACK = "train.pack"
TRAIN_ROUND = "train.round"
BACKBONE = "query.backbone"
GIVE_INPUTS = "query.inputs"
SKETCH = "query.sketch"
SCORE = "query.score"
COMPARE = "query.compare"
TRAIN_TEACHER = "train.teacher"
TELL_TEACHER = "query.teacher"
KEEP = "query.keep"
TRAIN_STUDENT = "train.student"
EVALUATE = "evaluate"
EVALUATE_TASKS = "evaluate.tasks"
TRAIN_CLIP = "train.clip"
TELL_CLIP = "query.clip"
TRAIN_CLIP_STUDENT = "train.clip_student"
EVALUATE_CLIP = "evaluate.clip"

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
FACTS = "facts"
ADAPTIVE = "adaptive"
MANIFEST = "manifest"
DONORS = "donors"
SCORERS = "scorers"
INPUTS = "inputs"
CARD = "card"

# What the scorer few-step gives without a donor.
NONE = "none"

# Beside an array ``x`` of a task in training goes ``mask/x``: one bit for each number, whether it is the task's own.
MASK = "mask/"

# The method of a client that learns a task with a fresh model, apart from its stream.
SCRATCH = "scratch"
# Methods of ``train.pack``: from donors, from labels alone, and from the result of these.
PACK, PACK_START, PACK_SELF = "pack", "pack-start", "pack-self"
# The same from donors by the losses number 1, 2, … of ``packing.losses-compared``.
PACK_LOSSES = "pack-losses-"
# The arm of Back-Pack in which targets learn from donors; what packing does beside it is in arms that begin with "pack-".
TARGET = "backpack"
# The method of strategy fedweit. Sparse adaptive parameters travel as records of their own, ADAPTIVE up, ADAPTIVE-0, … down.
FEDWEIT = "fedweit"

# Arms of strategy distil, besides SCRATCH. Evaluated with the method TEACHER, a client is its teacher.
TEACHER, STUDENT = "teacher", "student"

# A client with adaptive k says with the metric COLUMNS which columns of MIXING_MATRIX it kept.
COLUMNS = "columns"
MIXING_MATRIX = "backbone.projection.mix"

SOURCE_PACKAGES = ("client", "config", "data_partition", "models", "server", "strategies")


class RunError(RuntimeError):
    """A run that cannot go on; the message says what was found, what was expected and what to do."""


@dataclass(frozen=True)
class Instruction:
    """What a client is told with every ``train`` and ``evaluate`` message.

    Attributes:
        partition_id: the client that is meant; a node may host several.
        run_name: names the folder of the client's state.
        run_token: made anew for each run and kept when it is resumed; state with another one is not used.
        arm: part of the run this belongs to (``control``, ``federated``, …); each arm has its own client state.
        source_hash: hash of the server's source, see :func:`source_hash`.
        round: first round to train, from 1, or the round after which to evaluate.
        rounds: consecutive rounds to train without an exchange (1 with averaging).
        total_rounds: length of the learning-rate schedule.
        epochs: local epochs per round.
        share: parameter groups to send back; empty: none.
        train_fraction: share of the training concepts; 0: as in the run config.
        split: ``val`` or ``test``, for ``evaluate``.
        partition_ids: all clients of a joint training, comma-separated.
        task: the task of the client's stream to work on, from 0, in the order in which the client meets them.
        method: how to learn it: ``scratch``, one of packing, or empty for ``continual.method``; of distil the arm, of comkd
            which model is meant.
        goal: validation that the task should reach, for cpg.
        later: tasks to keep weights for, besides those of the stream.
        repeat: number of a repetition with other random numbers, from 0.
        server_round: first round to train within the task, from 1; ``round`` numbers the rounds of all tasks, and their ends.
    """

    partition_id: int
    run_name: str
    run_token: str
    arm: str
    source_hash: str
    round: int = 1
    rounds: int = 1
    total_rounds: int = 1
    epochs: int = 1
    share: str = ""
    train_fraction: float = 0.0
    split: str = "val"
    partition_ids: str = ""
    task: int = 0
    method: str = ""
    goal: float = 0.0
    later: int = 0
    repeat: int = 0
    server_round: int = 1

    def to_record(self) -> ConfigRecord:
        """Return the record that travels."""
        return ConfigRecord(dataclasses.asdict(self))

    @staticmethod
    def from_record(record: ConfigRecord) -> Instruction:
        """Read the record that came.

        Raises:
            RunError: a field is missing or unknown: server and client do not speak one protocol.
        """
        try:
            return Instruction(**dict(record))  # type: ignore[arg-type]
        except TypeError as error:
            raise RunError(f"the server's instruction does not fit this client's protocol: {error}") from None


@dataclass(frozen=True)
class ClientInfo:
    """One client as it described itself.

    With a stream of tasks, ``classes`` and the numbers of examples are those of all its tasks together, ``tasks`` are the
    classes of each in the order it meets them (otherwise empty), and ``warnings`` say what a task lacks. ``bad_rows`` are rows
    of its data set that it leaves out because they cannot be used, with the reason of each.
    """

    partition_id: int
    modality: str
    group: int
    domain: int
    classes: tuple[str, ...]
    num_train: int
    num_val: int
    num_test: int
    tasks: tuple[tuple[str, ...], ...] = ()
    warnings: tuple[str, ...] = ()
    bad_rows: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return one line of JSON; several travel in one ConfigRecord, which has no nested tables."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> ClientInfo:
        """Read :meth:`to_json`'s line."""
        fields = json.loads(text)
        lists = {name: tuple(fields[name]) for name in ("classes", "warnings", "bad_rows")}
        return ClientInfo(**{**fields, **lists, "tasks": tuple(tuple(names) for names in fields["tasks"])})


def message_to(node_id: int, message_type: str, instruction: Instruction, arrays: ArrayRecord | None) -> Message:
    """Build one message; ``arrays`` are the shared tensors, or None."""
    content = RecordDict({CONFIG: instruction.to_record()})
    if arrays is not None:
        content[ARRAYS] = arrays
    return Message(content, node_id, message_type)


def to_arrays(tensors: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Wrap named arrays for the wire, in the order of their names."""
    return ArrayRecord({name: Array(np.asarray(tensors[name], order="C")) for name in sorted(tensors)})


@dataclass(frozen=True)
class Manifest:
    """What a donor says of its backbone.

    Attributes:
        partition_id: of the donor.
        modality: of its data.
        classes: of its latest task.
        validation: balanced accuracy of that task on the donor's validation examples, measured again before it was sent.
        num_train: training examples of the donor.
        sha256: of the arrays and masks, see :func:`digest`.
        consent: the donor lets its inputs be used by others.
        inputs: sha256 of its inputs, if the run uses them; else empty.
    """

    partition_id: int
    modality: str
    classes: tuple[str, ...]
    validation: float
    num_train: int
    sha256: str
    consent: bool = False
    inputs: str = ""

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read :meth:`to_json`'s line.

        Raises:
            ValueError: it is not such a line.
        """
        try:
            fields = json.loads(text)
            found = Manifest(**{**fields, "classes": tuple(fields["classes"])})
            words = (found.modality, found.sha256, found.inputs, *found.classes)
            if not all(isinstance(word, str) for word in words):
                raise TypeError(f"found {words}, expected words")
            if not all(isinstance(number, int) for number in (found.partition_id, found.num_train)):
                raise TypeError(f"found client {found.partition_id!r} with {found.num_train!r} examples, expected integers")
            if not isinstance(found.consent, bool):
                raise TypeError(f"found consent {found.consent!r}, expected true or false")
            if not isinstance(found.validation, int | float) or found.validation < 0 or found.validation > 1:
                raise TypeError(f"found validation {found.validation!r}, expected a number from 0 to 1, or NaN: not known")
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"a donor's manifest is not one: {error}") from None
        return found


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of names, types, shapes and bytes of arrays, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = np.asarray(tensors[name], order="C")
        found.update(f"{name} {value.dtype.str} {value.shape}".encode())
        found.update(value.tobytes())
    return found.hexdigest()


def to_masks(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pack bool arrays for the wire, 8 numbers a byte, under names of their own."""
    return {MASK + name: np.packbits(mask) for name, mask in masks.items()}


def from_masks(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the arrays and their masks out of what came together."""
    arrays = {name: value for name, value in tensors.items() if not name.startswith(MASK)}
    bits = {name: np.unpackbits(tensors[MASK + name], count=value.size).astype(bool) for name, value in arrays.items()}
    return arrays, {name: mask.reshape(arrays[name].shape) for name, mask in bits.items()}


def from_arrays(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Unwrap named arrays."""
    return {name: array.numpy() for name, array in record.items()}


def from_donors(message: Message) -> tuple[list[Manifest], dict[str, dict[str, np.ndarray]]]:
    """Return the manifests of donors in a message, and the arrays that came with it, by hash."""
    told = message.content.config_records.get(DONORS)
    lines = told["manifests"] if told else []
    prefix = f"{DONORS}-"
    records = message.content.array_records
    sent = {name.removeprefix(prefix): from_arrays(record) for name, record in records.items() if name.startswith(prefix)}
    return [Manifest.from_json(str(line)) for line in lines], sent  # type: ignore[union-attr]


@cache
def source_hash(root: Path = PROJECT_ROOT) -> str:
    """Hash the Python source that must be equal on server and clients.

    A local SuperLink keeps the folder of its first caller, and simulated clients then import that folder's ``client``; with
    the hash in every message such a client refuses instead of computing with other code.
    """
    digest = hashlib.sha256()
    for path in sorted(path for package in SOURCE_PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


SOURCE_HASH = source_hash()


def check_source(server_hash: str) -> None:
    """Refuse to work for a server that runs other source.

    Raises:
        RunError: names both hashes and this client's folder.
    """
    if server_hash != SOURCE_HASH:
        raise RunError(
            f"this client runs other source than the server: client {SOURCE_HASH} in {PROJECT_ROOT}, server {server_hash}. "
            "Give both the same version; on one machine, stop the local SuperLink that another folder started"
        )
