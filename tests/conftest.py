"""Shared fixtures: everything that tests write goes to a temporary folder, and one torch thread is used."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; two threads on a busy machine wait for each other


@pytest.fixture(autouse=True)
def _runs_and_caches_go_to_tmp(monkeypatch, tmp_path):
    monkeypatch.setenv("BACKPACK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BACKPACK_CACHE", str(tmp_path / "cache"))
