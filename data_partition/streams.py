"""A client's stream of tasks: its classes split into T tasks of one size, which it meets one after the other.

A task is a classification problem with its own classes and its own head (task-incremental learning, van de Ven and Tolias,
arXiv:1904.07734): labels are local to the task, and no split of a task holds a row of another. It is loaded as a subgroup with
some of the client's classes: the rows are those that ``load_client`` returns for these classes, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from config import Data, task_fault
from data_partition.client_data import ClientData, Split, load_client, load_subgroup
from data_partition.files import DataError
from data_partition.subgroups import Subgroup, find_subgroup, seeded_order


def task_classes(classes: Sequence[str], num_tasks: int, seed: int, how: str = "drawn") -> list[tuple[str, ...]]:
    """Split classes into tasks of one size; inside a task they keep their order.

    Depends on seed and class names alone, so clients with the same classes have the same tasks, in both modalities; if the
    tasks are consecutive, on the order of the classes alone.

    Args:
        classes: all classes of a client.
        num_tasks: T; one task is ``classes`` as they are.
        seed: ``data.seed``.
        how: ``data.task_classes``: ``drawn`` by seed, or ``consecutive``, one block of the list after another.

    Raises:
        DataError: the tasks would differ in size or have fewer than 2 classes.
    """
    if fault := task_fault(len(classes), num_tasks):
        raise DataError(f"{fault}.")
    dealt = list(classes) if how == "consecutive" else seeded_order(classes, seed, "tasks")
    size = len(classes) // num_tasks
    chosen = [set(dealt[start : start + size]) for start in range(0, len(dealt), size)]
    return [tuple(name for name in classes if name in one) for one in chosen]


def task_order(num_tasks: int, order: str, seed: int, partition_id: int) -> list[int]:
    """Return the indices into :func:`task_classes` in the order in which a client meets the tasks.

    Args:
        num_tasks: T.
        order: ``data.task_order``: ``same`` for all clients, or ``shuffled``, by seed and client.
        seed: ``data.seed``.
        partition_id: the client.
    """
    if order == "same":
        return list(range(num_tasks))
    return [int(index) for index in seeded_order(map(str, range(num_tasks)), seed, f"task-order/{partition_id}")]


def task_subgroups(data: Data, subgroup: Subgroup) -> list[Subgroup]:
    """Return a client's subgroup once per task, with the classes of that task alone, in the order the client meets them.

    ``group`` is renumbered, so that the same group still means the same classes. With one task it is the subgroup itself.

    Raises:
        DataError: the number of tasks does not fit the number of classes.
    """
    total = data.tasks_per_client
    try:
        tasks = task_classes(subgroup.classes, total, data.seed, data.task_classes)
    except DataError as error:
        raise DataError(f"client {subgroup.partition_id}: {error}") from None
    order = task_order(total, data.task_order, data.seed, subgroup.partition_id)
    return [replace(subgroup, group=subgroup.group * total + index, classes=tasks[index]) for index in order]


def load_task(data: Data, partition_id: int, task_index: int, train_fraction: float | None = None) -> ClientData:
    """Return the data of one task of a client's stream; with one task a client, what ``load_client`` returns.

    A caller reports what :func:`empty_classes` says of it.

    Args:
        data: the data section of the run config.
        partition_id: index into ``subgroups(data)``.
        task_index: 0 for the task that the client meets first, up to ``data.tasks_per_client`` - 1.
        train_fraction: takes the place of ``data.train_fraction``, as in ``load_client``.

    Raises:
        DataError: the task does not exist, or cannot be learned, see :func:`check_task`; or as ``load_client``.
    """
    if not 0 <= task_index < data.tasks_per_client:
        raise DataError(
            f"client {partition_id} has no task {task_index}: data.tasks-per-client = {data.tasks_per_client} "
            f"has the tasks 0 to {data.tasks_per_client - 1}."
        )
    if data.tasks_per_client == 1:
        return load_client(data, partition_id, train_fraction)
    subgroup = task_subgroups(data, find_subgroup(data, partition_id))[task_index]
    return check_task(load_subgroup(data, subgroup, train_fraction))


def check_task(task: ClientData) -> ClientData:
    """Return the data of a task as they are, if they can be learned.

    Raises:
        DataError: the task has fewer than 2 classes, a class without a training example, or a split without any.
    """
    classes = task.subgroup.classes
    where = f"client {task.subgroup.partition_id}, task of the classes {', '.join(classes) or 'none'}"
    if len(classes) < 2:
        raise DataError(f"{where}: expected 2 classes or more; lower data.tasks-per-client.")
    for name, split in (("training", task.train), ("validation", task.val), ("test", task.test)):
        if not len(split):
            raise DataError(f"{where}: no {name} example; lower data.tasks-per-client.")
    if missing := _missing(task.train, classes):
        raise DataError(f"{where}: no training example of {', '.join(missing)}; raise data.train-fraction.")
    return task


def empty_classes(client: ClientData) -> tuple[str, ...]:
    """Return a warning for each class that validation or test do not hold; such a class does not count in a score there."""
    return tuple(
        f"no {name} example of the class {missing}"
        for name, split in (("validation", client.val), ("test", client.test))
        for missing in _missing(split, client.subgroup.classes)
    )


def _missing(split: Split, classes: Sequence[str]) -> list[str]:
    present = set(split.labels.tolist())
    return [name for label, name in enumerate(classes) if label not in present]
