"""Keys of folder trees follow the files, and a note of one saves looking at each file while no folder changes."""

from __future__ import annotations

import os
from pathlib import Path

from data_partition import tree_keys
from data_partition.tree_keys import noted_key, stamp_of, tree_key


def test_a_key_follows_the_files_and_not_the_place(tmp_path):
    root = tmp_path / "one"
    (root / "folder" / "inner").mkdir(parents=True)
    (root / "folder" / "inner" / "a").write_text("aaa")
    (root / "b").write_text("b")
    places = [root / "folder", root / "b", root / "none"]
    first = tree_key(root, places, "settings")
    assert first == tree_key(root, places, "settings")
    assert len(first) == 16
    moved = root.rename(tmp_path / "other")
    assert tree_key(moved, [moved / place.name for place in places], "settings") == first
    moved.rename(root)
    found = {first, tree_key(root, places, "other settings"), tree_key(root, places[:2], "settings")}
    (root / "none").write_text("")
    found.add(tree_key(root, places, "settings"))
    (root / "folder" / "inner" / "a").write_text("aaaa")
    os.utime(root / "folder" / "inner" / "a", ns=(1, 1))
    found.add(tree_key(root, places, "settings"))
    os.utime(root / "folder" / "inner" / "a", ns=(1, 2))  # the same size, another time
    found.add(tree_key(root, places, "settings"))
    (root / "folder" / "inner" / "a").rename(root / "folder" / "inner" / "c")
    found.add(tree_key(root, places, "settings"))
    (root / "folder" / "link").symlink_to(tmp_path / "nowhere")
    found.add(tree_key(root, places, "settings"))
    assert len(found) == 8


def aged_tree(root: Path) -> Path:
    (root / "folder" / "inner").mkdir(parents=True)
    (root / "folder" / "inner" / "a").write_text("aaa")
    (root / "list").write_text("a")
    age(root)
    return root


def age(root: Path) -> None:
    """Let everything be ten seconds older than it is."""
    for path in (root, *root.rglob("*")):
        told = path.stat()
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns - 10**10))


def looks(monkeypatch) -> list[int]:
    made: list[int] = []
    look = tree_keys._look
    monkeypatch.setattr(tree_keys, "_look", lambda *args: made.append(1) or look(*args))
    return made


def test_a_note_is_used_until_a_folder_or_a_place_changes(tmp_path, monkeypatch):
    root, note = aged_tree(tmp_path / "tree"), tmp_path / "cache" / "note"
    places = [root / "folder", root / "list", root / "none"]
    made = looks(monkeypatch)
    first = noted_key(note, root, places, "fact")
    assert noted_key(note, root, places, "fact") == first == tree_key(root, places, "fact")
    assert len(made) == 2  # the first one, and tree_key itself
    (root / "folder" / "inner" / "b").write_text("b")
    second = noted_key(note, root, places, "fact")
    assert (second != first, len(made)) == (True, 3)
    age(root)
    assert noted_key(note, root, places, "fact") != second  # files are older now
    os.utime(root / "list", ns=(5, 5))
    assert noted_key(note, root, places, "fact") == tree_key(root, places, "fact")
    (root / "none").write_text("")
    assert noted_key(note, root, places, "fact") == tree_key(root, places, "fact")


def test_a_file_that_is_written_over_in_place_is_seen_by_its_stamp_and_by_looking_again(tmp_path, monkeypatch):
    root, note = aged_tree(tmp_path / "tree"), tmp_path / "cache" / "note"
    first, stamp = noted_key(note, root, [root / "folder"]), stamp_of(root / "folder" / "inner" / "a")
    os.utime(root / "folder" / "inner" / "a", ns=(7, 7))
    assert stamp_of(root / "folder" / "inner" / "a") != stamp
    assert noted_key(note, root, [root / "folder"]) == first
    second = noted_key(note, root, [root / "folder"], again=True)
    assert second == tree_key(root, [root / "folder"]) != first
    assert noted_key(note, root, [root / "folder"]) == second


def test_no_note_is_taken_of_what_has_just_changed_and_a_damaged_one_is_not_read(tmp_path, monkeypatch):
    root, note = aged_tree(tmp_path / "tree"), tmp_path / "note"
    (root / "folder" / "new").write_text("")
    first = noted_key(note, root, [root / "folder"])
    assert not note.exists()
    age(root)
    noted_key(note, root, [root / "folder"])
    note.write_text("{")
    assert noted_key(note, root, [root / "folder"]) == tree_key(root, [root / "folder"]) != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note", "tree"]
