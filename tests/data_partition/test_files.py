"""Finding the files, also from an unpacked app bundle that lacks them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_partition import files
from data_partition.files import DataError, check_sha256, find_data_file

ROOT = Path(files.__file__).resolve().parents[1]
SHIPPED = ROOT / "data_partition" / "emojipairs"
LOAD = """
import data_partition
from data_partition.emojipairs.dataset import load
print(data_partition.__file__, len(load().concepts))
"""


def write_distribution(site: Path, project: Path, url: str | None = None) -> None:
    info = site / "backpack_fl-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: backpack-fl\nVersion: 9.9\n")
    (info / "direct_url.json").write_text(json.dumps({"url": url or project.as_uri(), "dir_info": {"editable": True}}))


@pytest.fixture
def bundle(tmp_path):
    """An unpacked app bundle: the code without .parquet and .txt files."""
    folder = tmp_path / "bundle"
    for package in ("config", "data_partition"):
        dropped = shutil.ignore_patterns("*.parquet", "*.txt", "__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=dropped)
    return folder


def run_in_bundle(bundle: Path, cwd: Path, *more_paths: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "BACKPACK_DATA")}
    path = os.pathsep.join(map(str, (bundle, *more_paths)))
    return subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )


def test_a_bundle_finds_the_files_of_an_editable_install(bundle, tmp_path):
    project = tmp_path / "a project"
    shutil.copytree(SHIPPED, project / "data_partition" / "emojipairs")
    write_distribution(tmp_path / "site", project)
    result = run_in_bundle(bundle, tmp_path, tmp_path / "site")
    assert result.stdout.split() == [str(bundle / "data_partition" / "__init__.py"), "723"], result.stderr


def test_a_bundle_finds_the_files_by_the_environment(bundle, tmp_path):
    result = run_in_bundle(bundle, tmp_path, BACKPACK_DATA=str(SHIPPED))
    assert result.stdout.split()[-1:] == ["723"], result.stderr


def test_all_places_are_listed_when_nothing_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "MODULE_FOLDER", tmp_path / "module")
    monkeypatch.setattr(files, "project_folders", lambda: [tmp_path / "project"])
    monkeypatch.setenv("BACKPACK_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError) as caught:
        find_data_file("emojipairs.parquet")
    message = str(caught.value)
    places = [tmp_path / "module", tmp_path / "project" / "data_partition" / "emojipairs", tmp_path / "env"]
    positions = [message.index(f"  - {place}") for place in places]
    assert positions == sorted(positions)
    assert "pip install -e" in message
    assert isinstance(caught.value, FileNotFoundError)


def test_the_order_of_the_places(monkeypatch, tmp_path):
    for folder in ("module", "project/data_partition/emojipairs", "env"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.txt").write_text(folder)
    monkeypatch.setattr(files, "MODULE_FOLDER", tmp_path / "module")
    monkeypatch.setattr(files, "project_folders", lambda: [tmp_path / "project"])
    monkeypatch.setenv("BACKPACK_DATA", str(tmp_path / "env"))
    for folder in ("module", "project/data_partition/emojipairs", "env"):
        assert find_data_file("x.txt") == tmp_path / folder / "x.txt"
        (tmp_path / folder / "x.txt").unlink()


def test_an_explicit_folder_is_the_only_place(tmp_path):
    with pytest.raises(DataError, match=r"data\.data-dir") as caught:
        find_data_file("emojipairs.parquet", tmp_path)
    assert str(caught.value).count("  - ") == 1
    shutil.copy(SHIPPED / "vocab.txt", tmp_path)
    assert find_data_file("vocab.txt", str(tmp_path)) == tmp_path / "vocab.txt"


def test_several_and_broken_distributions(monkeypatch, tmp_path):
    for name in ("one", "two two"):
        (tmp_path / name).mkdir()
        write_distribution(tmp_path / f"site-{name}", tmp_path / name)
    write_distribution(tmp_path / "site-gone", tmp_path / "gone")
    write_distribution(tmp_path / "site-git", tmp_path / "git", url="https://example.org/backpack.git")
    for site in ("site-git", "site-gone", "site-two two", "site-one"):
        monkeypatch.syspath_prepend(str(tmp_path / site))
    found = [folder for folder in files.project_folders() if tmp_path in folder.parents]
    assert found == [tmp_path / "one", tmp_path / "two two"]


def test_a_truncated_file_and_a_git_lfs_pointer_are_refused(tmp_path):
    (tmp_path / "cut").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cut \(4 bytes\) has sha256 .*expected 00; it was cut short"):
        check_sha256(tmp_path / "cut", "00")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="git lfs pull"):
        check_sha256(tmp_path / "pointer", "00")
