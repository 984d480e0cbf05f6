"""Server checkpoints: what each arm has done, so that a killed run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.storage import load_record, remove_record, rounds_on_disk, save_record
from server.run_folder import RunFolder
from strategies.job import Position

KEPT_ROUNDS = 2


class Checkpoints:
    """Progress of the arms of one run, under ``RUN/checkpoints/ARM/round-NNNN``.

    Every checkpoint holds the length of ``events.jsonl`` at that moment. Opening a run cuts the events that came after the
    newest checkpoint: they belong to a round that will be done again.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.root = folder.path / "checkpoints"
        if folder.config.run.resume and folder.events_path.exists():
            arms = [path for path in self.root.glob("*") if rounds_on_disk(path)]
            lengths = [load_record(arm / _name(rounds_on_disk(arm)[-1]))[1]["events_bytes"] for arm in arms]
            with folder.events_path.open("r+b") as events:
                events.truncate(max(lengths, default=0))

    def begin(self, arm: str) -> Position:
        """Return how far an arm is; without ``run.resume`` always nothing."""
        rounds = rounds_on_disk(self.root / arm)
        if not rounds:
            self.folder.record("arm", arm=arm)
            return Position()
        arrays, facts = load_record(self.root / arm / _name(rounds[-1]))
        return Position(rounds[-1], arrays, bool(facts["finished"]))

    def save(self, arm: str, server_round: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the checkpoint of a round; the one before it is kept, older ones go."""
        self._write(arm, server_round, arrays, finished=False)
        for number in rounds_on_disk(self.root / arm)[:-KEPT_ROUNDS]:
            remove_record(self.root / arm / _name(number))

    def finish(self, arm: str) -> None:
        """Mark an arm as done, with the arrays of its last round."""
        position = self.begin(arm) if rounds_on_disk(self.root / arm) else Position()
        self._write(arm, position.rounds_done, position.arrays, finished=True)

    def _write(self, arm: str, server_round: int, arrays: Mapping[str, np.ndarray], *, finished: bool) -> None:
        length = self.folder.events_path.stat().st_size
        facts = {"arm": arm, "round": server_round, "finished": finished, "events_bytes": length}
        save_record(self.root / arm / _name(server_round), arrays, facts)


def _name(server_round: int) -> str:
    return f"round-{server_round:04d}"
