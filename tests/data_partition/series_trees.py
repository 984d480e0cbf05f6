"""Small data sets of series in their official formats: a watch array, PAMAP2, GENEActiv."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from data_partition import watch
from data_partition.pamap2 import ACTIVITIES, SUBJECTS

PULSE = 72.0


def write_watch(folder: Path, samples: int = 120, seed: int = 0) -> Path:
    """Write an array of the layout of seglearn's, with 10 subjects, 7 classes and both arms.

    The class is the channel that swings, or none; subjects differ in how far. Returns ``folder``.
    """
    rng = np.random.default_rng(seed)
    pairs = [(subject, label, side) for side in (0.0, 1.0) for label in range(7) for subject in range(1, 11)]
    series = []
    for number, (subject, label, _) in enumerate(pairs):
        time = np.arange(samples + number % 3)
        values = rng.normal(0, 0.1, (len(time), 6))
        if label < 6:
            values[:, label] += (1 + 0.05 * subject) * np.sin(time / 3 + subject)
        series.append(values)
    content = {
        "X": series,
        "y_labels": list(watch.CLASSES),
        "y": np.array([label for _, label, _ in pairs]),
        "subject": np.array([subject for subject, _, _ in pairs]),
        "side": np.array([side for *_, side in pairs]),
        "X_labels": ["ax", "ay", "az", "wx", "wy", "wz"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / watch.FILE, np.array(content, dtype=object), allow_pickle=True)
    return folder


def trust_watch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the written array pass as the published one."""
    monkeypatch.setattr(watch, "SHA256", hashlib.sha256((folder / watch.FILE).read_bytes()).hexdigest())


def install_watch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a file of :func:`write_watch` pass for that of the package."""
    trust_watch(monkeypatch, folder)
    monkeypatch.setattr(watch, "_installed", lambda: folder / watch.FILE)


def write_pamap2(folder: Path, lines: int = 700, activities: tuple[int, ...] = (1, 4, 24)) -> Path:
    """Write nine subjects of the protocol: each activity for so many lines, with transient lines (0) around it.

    Column c of line i has the value c + i / 10,000; the heart rate is there in every eleventh line, and some lines of a sensor
    are lost. Returns ``folder``.
    """
    target = folder / "PAMAP2_Dataset" / "Protocol"
    target.mkdir(parents=True)
    labels = np.concatenate([np.r_[np.zeros(50), np.full(lines, activity)] for activity in activities] + [np.zeros(50)])
    table = np.arange(54)[None, :] + np.arange(len(labels))[:, None] / 10_000
    table[:, 0] = np.arange(len(labels)) / 100
    table[:, 1] = labels
    table[:, 2] = np.nan
    table[::11, 2] = PULSE
    table[100:103, 20:37] = np.nan
    for subject in SUBJECTS:
        assert set(activities) <= set(ACTIVITIES)
        rows = [f"{row[0]:.2f} {int(row[1])} " + " ".join(f"{value:.6g}" for value in row[2:]) for row in table]
        text = "\n".join(rows).replace("nan", "NaN") + "\n"
        (target / f"subject{subject}.dat").write_text(text, encoding="utf-8")
    return folder


def write_geneactiv(
    folder: Path, subjects: int = 5, activities: tuple[str, ...] = ("sit", "walk"), samples: int = 600, rate: str = "20.0 Hz"
) -> Path:
    """Write exports of the device's software, a recording of each subject and activity; x is the place of the activity.

    Returns ``folder``.
    """
    header = ["Device Type,GENEActiv", "Device Model,1.1", f"Measurement Frequency,{rate}", "Subject Code,7"]
    header += [f"Note {number},"[: 8 + number % 3] for number in range(96)]
    for subject in range(subjects):
        for place, activity in enumerate(activities):
            target = folder / "geneactiv" / f"S{subject:02d}" / activity
            target.mkdir(parents=True)
            rows = [
                f"2012-05-23 16:47:{i // 100 % 60:02d}:{i % 100:02d}0,{place + i / 1000:.4f},{-subject:.4f},1.0000,0,0,25.6"
                for i in range(samples)
            ]
            (target / "morning.csv").write_text("\n".join(header + rows) + "\n", encoding="utf-8")
    return folder
