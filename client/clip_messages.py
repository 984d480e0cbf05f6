"""Messages of ComKD-CLIP."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from client.messages import answer, read
from strategies.protocol import CARD
from strategies.teacher_card import TeacherCard


def register(app: ClientApp) -> None:
    """Let an app handle them."""
    app.train("clip")(train_clip)
    app.query("clip")(tell_clip)
    app.train("clip_student")(train_clip_student)
    app.evaluate("clip")(evaluate_clip)


def train_clip(message: Message, context: Context) -> Message:
    """Train the teacher of ComKD-CLIP; it stays here until it is asked for."""
    from client import comkd_teacher
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    return answer(message, comkd_teacher.train(config, instruction, state_folder(config, context, instruction)), {})


def tell_clip(message: Message, context: Context) -> Message:
    """Give the card of the teacher and, if the instruction names a share, its image branch and text features."""
    from client.comkd_teacher import publish
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    card, arrays = publish(config, instruction, state_folder(config, context, instruction))
    metrics = {"partition-id": card.partition_id, "num-examples": 1}
    reply = answer(message, metrics, arrays if instruction.share else {})
    reply.content[CARD] = ConfigRecord({"json": card.to_json()})
    return reply


def train_clip_student(message: Message, context: Context) -> Message:
    """Train a student of ComKD-CLIP on images without labels."""
    from client import comkd
    from client.state import state_folder

    config, instruction, sent = read(message, context)
    folder = state_folder(config, context, instruction)
    return answer(message, comkd.train(config, instruction, folder, _card(message), sent), {})


def evaluate_clip(message: Message, context: Context) -> Message:
    """Evaluate a teacher or student of ComKD-CLIP on base and on novel classes."""
    from client import comkd
    from client.state import state_folder

    config, instruction, sent = read(message, context)
    folder = state_folder(config, context, instruction)
    return answer(message, comkd.evaluate(config, instruction, folder, _card(message), sent), {})


def _card(message: Message) -> TeacherCard:
    return TeacherCard.from_json(str(message.content.config_records[CARD]["json"]))
