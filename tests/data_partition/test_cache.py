"""Folders that are written once: one writer at a time, and nothing trusted that is incomplete."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from data_partition import cache
from data_partition.cache import write_once

FORK = multiprocessing.get_context("fork")


def write_and_count(folder: Path, log: Path, barrier) -> None:
    def write(part: Path) -> None:
        with log.open("a") as file:
            file.write("written\n")
        (part / "content").write_text("whole")

    barrier.wait()
    assert (write_once(folder, write) / "content").read_text() == "whole"


def test_of_many_processes_one_writes_and_all_read(tmp_path):
    barrier = FORK.Barrier(6)
    log = tmp_path / "log"
    workers = [FORK.Process(target=write_and_count, args=(tmp_path / "a" / "store", log, barrier)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert log.read_text() == "written\n"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["store", "store.lock"]


def die_half_way(folder: Path) -> None:
    def write(part: Path) -> None:
        (part / "content").write_text("hal")
        os.kill(os.getpid(), signal.SIGKILL)

    write_once(folder, write)


def test_what_a_killed_writer_leaves_is_not_read_and_goes(tmp_path):
    folder = tmp_path / "store"
    worker = FORK.Process(target=die_half_way, args=(folder,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert not folder.exists()
    (left_over,) = tmp_path.glob("store.part-*")
    assert (left_over / "content").read_text() == "hal"
    assert (write_once(folder, lambda part: (part / "content").write_text("whole")) / "content").read_text() == "whole"
    assert not left_over.exists()


def test_a_writer_that_fails_leaves_nothing_and_says_why(tmp_path):
    def fail(part: Path) -> None:
        (part / "content").write_text("hal")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_once(tmp_path / "store", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["store.lock"]


def test_without_locks_the_first_to_finish_wins(tmp_path, monkeypatch):
    class NoLock:
        def __init__(self, path):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(cache, "FileLock", NoLock)
    folder = tmp_path / "store"

    def slower(part: Path) -> None:
        (part / "content").write_text("second")
        folder.mkdir()
        (folder / "content").write_text("first")

    assert (write_once(folder, slower) / "content").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
