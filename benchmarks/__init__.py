"""Measurements of speed and memory against named baselines; each script states what it compares."""
