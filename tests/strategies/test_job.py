import pytest

from config import parse
from strategies import table
from strategies.job import Job
from strategies.protocol import EVALUATE, Instruction, RunError
from tests.fakes import good, mailbox


def job(events, **flat):
    def record(event, **fields):
        events.append({"event": event, **fields})

    box = mailbox(lambda message: good(message, **{"balanced-accuracy": 0.5}), record)
    return Job(parse(flat), "run", "token", box, lambda client, share: {}, None)


def test_an_evaluation_in_a_stream_tells_the_task_and_how_many_were_learned():
    events = []
    work = job(events)
    told = [work.instruction(client, "arm", task=1, split="test") for client in work.mailbox.clients.values()]
    asked = [work.message(EVALUATE, one, None) for one in told]
    work.evaluate(asked, after=2)
    work.evaluate(asked)
    found = [event for event in events if event["event"] == "evaluate"]
    assert [(event["task"], event["after"], event["client"]) for event in found[:3]] == [(1, 2, 0), (1, 2, 1), (1, 2, 2)]
    assert len(found) == 6
    assert not any(key in event for event in found[3:] for key in ("task", "after"))


def test_the_task_travels():
    told = Instruction(0, "run", "token", "arm", "hash", task=3)
    assert Instruction.from_record(told.to_record()) == told
    assert Instruction(0, "run", "token", "arm", "hash").task == 0


@pytest.mark.parametrize("name", sorted(set(table.STRATEGIES) | set(table.STREAMS)))
def test_a_strategy_refuses_a_number_of_tasks_that_it_is_not_for(name):
    for tasks, known in ((1, table.STRATEGIES), (3, table.STREAMS)):
        flat = {"strategy.name": name, "data.tasks-per-client": tasks}
        if name in known:
            table.check_tasks(parse(flat))
        else:
            with pytest.raises(RunError, match=f"strategy.name = '{name}'.*data.tasks-per-client = {tasks}"):
                table.run(job([], **flat))
