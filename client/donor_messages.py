"""Messages of strategies whose clients learn from one another: Back-Pack, distil, and late joiners."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from client.messages import Tensors, answer, read, refusal
from strategies.protocol import DONORS, INPUTS, MANIFEST, SCORERS, Manifest, from_donors


def register(app: ClientApp) -> None:
    """Let an app handle them."""
    app.train("pack")(train_pack)
    app.query("backbone")(backbone)
    app.query("inputs")(inputs)
    app.query("sketch")(sketch)
    app.query("score")(score)
    app.query("compare")(compare)
    app.train("teacher")(train_teacher)
    app.query("teacher")(tell_teacher)
    app.query("keep")(keep)
    app.train("student")(train_student)


def train_pack(message: Message, context: Context) -> Message:
    """Pack donors into the model of a client's task; a donor that does not fit is named, and nothing is learned then."""
    from client.pack_donors import pack_task
    from client.scoring import DonorError
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    folder, similarities = state_folder(config, context, instruction), message.content[DONORS].get("similarities", [])
    try:
        metrics, facts = pack_task(config, instruction, folder, *from_donors(message), similarities)  # type: ignore[arg-type]
    except DonorError as error:
        return refusal(message, instruction, error)
    return answer(message, metrics, {}, facts)


def backbone(message: Message, context: Context) -> Message:
    """Give the backbone of the client's latest task, if it still is what was learned."""
    from client.donors import publish
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    return offer(message, *publish(config, instruction, state_folder(config, context, instruction)))


def inputs(message: Message, context: Context) -> Message:
    """Give the client's training inputs without labels; an error where it has not consented."""
    from client.donors import give_inputs

    config, instruction, _ = read(message, context)
    arrays = give_inputs(config, instruction)
    return answer(message, {"partition-id": instruction.partition_id, "num-examples": len(arrays[INPUTS])}, arrays)


def sketch(message: Message, context: Context) -> Message:
    """Tell 2 KB of a client's latest model."""
    from client.sketching import tell
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    arrays, examples = tell(config, instruction, state_folder(config, context, instruction))
    return answer(message, {"partition-id": instruction.partition_id, "num-examples": examples}, arrays)


def score(message: Message, context: Context) -> Message:
    """Score a donor; one that does not fit is named, with the reason, in place of scores."""
    from client.scoring import DonorError, score_donors
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    names = [str(name) for name in message.content.config_records[SCORERS]["names"]]  # type: ignore[union-attr]
    folder = state_folder(config, context, instruction)
    try:
        return answer(message, score_donors(config, instruction, folder, *from_donors(message), names), {})
    except DonorError as error:
        return refusal(message, instruction, error)


def compare(message: Message, context: Context) -> Message:
    """Score all models that a client that joins late may start from."""
    from client.joining import score_models
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    names = [str(name) for name in message.content.config_records[SCORERS]["names"]]  # type: ignore[union-attr]
    folder = state_folder(config, context, instruction)
    return answer(message, score_models(config, instruction, folder, *from_donors(message), names), {})


def train_teacher(message: Message, context: Context) -> Message:
    """Train a teacher."""
    from client.distilling import learn_teacher
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    return answer(message, learn_teacher(config, instruction, state_folder(config, context, instruction)), {})


def tell_teacher(message: Message, context: Context) -> Message:
    """Give the client's teacher, or its manifest alone."""
    from client.distilling import publish
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    return offer(message, *publish(config, instruction, state_folder(config, context, instruction)))


def keep(message: Message, context: Context) -> Message:
    """Keep a teacher for a student; one that does not fit is named, with the reason."""
    from client.distilling import keep as keep_teacher
    from client.scoring import DonorError
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    folder = state_folder(config, context, instruction)
    try:
        return answer(message, keep_teacher(config, instruction, folder, *from_donors(message)), {})
    except DonorError as error:
        return refusal(message, instruction, error)


def train_student(message: Message, context: Context) -> Message:
    """Train a student by the teachers that are kept here, or by none."""
    from client.distilling import learn_student
    from client.state import state_folder

    config, instruction, _ = read(message, context)
    folder = state_folder(config, context, instruction)
    metrics, facts = learn_student(config, instruction, folder, from_donors(message)[0])
    return answer(message, metrics, {}, facts)


def offer(message: Message, manifest: Manifest, arrays: Tensors) -> Message:
    """Answer with a model, or with its manifest alone."""
    reply = answer(message, {"partition-id": manifest.partition_id, "num-examples": manifest.num_train}, arrays)
    reply.content[MANIFEST] = ConfigRecord({"json": manifest.to_json()})
    return reply
