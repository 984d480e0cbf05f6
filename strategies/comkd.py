"""ComKD-CLIP in a federation: one client's CLIP teaches smaller image branches at clients whose images have no labels.

1. The client ``clip.teacher`` trains a CLIP on its labelled images of base classes (client/comkd_teacher.py).
2. The server asks it for the image branch and the text features of all classes, and hands them to every other client, once.
3. Each of them trains a student of its own on its unlabelled images of base classes (client/comkd.py). Nothing is averaged.

The teacher's image branch has to see the images of the students, and these may not travel: so the branch does. Its outputs
would not do, as it computes nothing on images that it never sees. The text branch, and everything that it has read, stays with
the teacher; of it only one vector a class leaves. A student keeps what came, by its hash, and later gets the card alone.

Everybody is scored by the base-to-novel protocol (data_partition/base_novel.py): as trained, the students before training
(``without-teacher``: they have the teacher's text features, and nothing that ties images to them), and the teacher's own image
branch on the students' images (``without-student``).

Source: ComKD-CLIP (Chen, Qiao, Sun & Li, arXiv 2408.04145), figure 2; there teacher and student are in one place.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Message

from data_partition.base_novel import base_classes
from strategies.job import Job
from strategies.protocol import (
    CARD,
    EVALUATE_CLIP,
    TELL_CLIP,
    TRAIN_CLIP,
    TRAIN_CLIP_STUDENT,
    ClientInfo,
    RunError,
    to_arrays,
)
from strategies.teacher_card import TeacherCard

TAUGHT, STUDENT = "clip-teacher", "comkd"
BEFORE, INSTEAD = "without-teacher", "without-student"
"""Arms: the teacher, its students, the students before training, and the teacher on the students' images."""


def run(job: Job) -> None:
    """Train the teacher, then the students, and evaluate all of them on the test split."""
    teacher, students = sides(job)
    begun = job.progress.begin(TAUGHT)
    if not begun.finished:
        told = job.instruction(teacher, TAUGHT)
        job.record_training(job.mailbox.ask([job.message(TRAIN_CLIP, told, None)], lambda client: {}), TAUGHT, 1, rounds=1)
    card, arrays = pull(job, teacher)
    if not begun.finished:
        evaluate(job, [teacher], TAUGHT, "own", 1, "test", card)
        job.progress.finish(TAUGHT)
    teach(job, students, card, arrays)


def sides(job: Job) -> tuple[ClientInfo, list[ClientInfo]]:
    """Return the teacher and the students.

    Raises:
        RunError: the teacher does not take part, nobody else does, a client has no images or other classes, or too few classes
            are base or novel.
    """
    clients, wanted = job.mailbox.clients, job.config.clip.teacher
    if wanted not in clients:
        raise RunError(f"clip.teacher = {wanted} does not take part: found the clients {sorted(clients)} (data.clients)")
    teacher = clients[wanted]
    students = [client for client in clients.values() if client.partition_id != wanted]
    others = [one.partition_id for one in clients.values() if one.modality != "image" or one.classes != teacher.classes]
    if others or not students:
        fitting = "clients with images of the teacher's classes, and at least one beside it"
        raise RunError(f"clients {others or [wanted]} of {sorted(clients)}: expected {fitting}: set data.clients")
    try:
        base_classes(len(teacher.classes), job.config.clip.novel_share)
    except ValueError as error:
        raise RunError(str(error)) from None
    return teacher, students


def pull(job: Job, teacher: ClientInfo) -> tuple[TeacherCard, ArrayRecord]:
    """Ask the teacher for its card, then for the arrays that the card describes, and check them.

    Raises:
        RunError: what came is not what the card says.
    """
    told = job.instruction(teacher, TAUGHT)
    try:
        (said,) = job.mailbox.ask([job.message(TELL_CLIP, told, None)], lambda client: {})
        card = TeacherCard.from_json(str(said.message.content.config_records[CARD]["json"]))
        if (card.partition_id, card.classes) != (teacher.partition_id, teacher.classes):
            raise ValueError(f"it is of client {card.partition_id} with the classes {card.classes}")
        told = job.instruction(teacher, TAUGHT, share="image")
        (sent,) = job.mailbox.ask([job.message(TELL_CLIP, told, None)], lambda client: card.shapes)
        card.check(sent.arrays)
    except (KeyError, ValueError) as error:
        raise RunError(f"client {teacher.partition_id} is no teacher: {error}") from None
    size = sum(value.size for value in sent.arrays.values())
    base = list(card.classes[: card.base])
    job.mailbox.record(
        "teacher",
        arm=TAUGHT,
        client=card.partition_id,
        sha256=card.sha256,
        parameters=size,
        base=base,
        novel=list(card.classes[card.base :]),
    )
    return card, to_arrays(sent.arrays)


def teach(job: Job, students: list[ClientInfo], card: TeacherCard, arrays: ArrayRecord) -> None:
    """Train the students; one message covers all rounds up to the next look at the validation split."""
    begun = job.progress.begin(STUDENT)
    if begun.finished:
        return
    done, rounds, hold = begun.rounds_done, job.config.run.rounds, False
    while done < rounds:
        step = min(job.config.run.evaluate_every or rounds, rounds - done)
        told = [job.instruction(one, STUDENT, round=done + 1, rounds=step) for one in students]
        asked = [with_card(job.message(TRAIN_CLIP_STUDENT, one, None if hold else arrays), card) for one in told]
        replies = job.mailbox.ask(asked, lambda client: {})
        hold, done = True, done + step
        job.record_training(replies, STUDENT, done)
        if job.evaluation_due(done):
            evaluate(job, students, STUDENT, "student", done, "val", card)
        job.progress.save(STUDENT, done, {})
    evaluate(job, students, BEFORE, "untrained", 0, "test", card)
    evaluate(job, students, INSTEAD, "sent", 0, "test", card)
    evaluate(job, students, STUDENT, "student", rounds, "test", card)
    job.progress.finish(STUDENT)


def evaluate(
    job: Job, clients: list[ClientInfo], arm: str, method: str, server_round: int, split: str, card: TeacherCard
) -> None:
    """Evaluate one model of each client; see ``client.comkd.evaluate``."""
    told = [job.instruction(one, arm, method=method, round=server_round, split=split) for one in clients]
    job.evaluate([with_card(job.message(EVALUATE_CLIP, one, None), card) for one in told])


def with_card(message: Message, card: TeacherCard) -> Message:
    """Put the card of a teacher into a message."""
    message.content[CARD] = ConfigRecord({"json": card.to_json()})
    return message
