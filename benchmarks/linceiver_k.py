"""Accuracy, k, size and speed of every low-rank form: runs what is missing, then writes the tables and the figure.

    .venv/bin/python benchmarks/linceiver_k.py --seeds 0,1,2 --jobs 2

Each setting is ``simulations/linceiver_k.toml`` with a few keys changed; *federated* and *stand-alone* are the two arms of one
run, balanced accuracy on the test split. Some settings are also run as in ``linceiver_clustered.toml``, ``joint.toml`` and
``centralised.toml``. Tables go between the markers of ``docs/linceiver.md``, the figure to ``docs/linceiver_k.svg`` (it needs
matplotlib: ``pip install -e '.[figures]'``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: the folder of the script is not where packages are
    sys.path[0] = str(ROOT)

from benchmarks.page import update_page  # noqa: E402
from simulations.significance import wilcoxon_p  # noqa: E402

PAGE = ROOT / "docs" / "linceiver.md"
FIGURE = ROOT / "docs" / "linceiver_k.svg"
ADAPTIVE = {"model.rank": 32, "model.adaptive-k": "prefix"}
FIXED = {"model.adaptive-k": "none"}
HARD = {"model.k-learning-rate": 0.2, "model.k-penalty": 0.01}  # at 0.05 no column closes in so few steps


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        name: for people.
        slug: for run folders.
        keys: what differs from ``linceiver_k.toml``.
        everywhere: whether it is also run in all the ways of ``WAYS``.
    """

    name: str
    slug: str
    keys: dict[str, Any]
    everywhere: bool = False


SETTINGS = (
    Setting("k = 8", "k8", {**FIXED, "model.rank": 8}),
    Setting("k = 16", "k16", {**FIXED, "model.rank": 16}, everywhere=True),
    Setting("k = 32", "k32", {**FIXED, "model.rank": 32}, everywhere=True),
    Setting("k = 64", "k64", {**FIXED, "model.rank": 64}),
    Setting("learned k, at most 32", "learned32", {}, everywhere=True),
    Setting("learned k, at most 32, 8 free", "learned32t8", {"model.k-target": 8}, everywhere=True),
    Setting("learned k, at most 64", "learned64", {"model.rank": 64}),
    Setting("hard concrete, at most 32", "hard32", {"model.adaptive-k": "hard-concrete", **HARD}),
    Setting("k = 32, input-dependent bias", "bias32", {**FIXED, "model.rank": 32, "model.k-input-bias": True}),
    Setting("none (Perceiver IO)", "none", {**FIXED, "model.low-rank": "none"}, everywhere=True),
    Setting("pool, k = 16", "pool16", {**FIXED, "model.low-rank": "pool", "model.rank": 16}),
    Setting("dense before to_kv, k = 16", "before16", {**FIXED, "model.low-rank": "dense-before", "model.rank": 16}),
    Setting("dense (Linformer), k = 16", "dense16", {**FIXED, "model.low-rank": "dense", "model.rank": 16}),
    Setting(
        "the original: dense in all stages, sigmoid gate, k = 8",
        "original8",
        {"model.low-rank": "dense", "model.stages": "all", "model.rank": 8, "model.adaptive-k": "sigmoid"},
        everywhere=True,
    ),
)
REFERENCE = "k32"
WHOLE = {"strategy.share": "backbone+adapter+head", "strategy.scope": "classes", "strategy.control": False}
WAYS: dict[str, dict[str, Any]] = {
    "clustered": WHOLE,
    "joint": {"strategy.name": "joint", "strategy.control": False},
    "centralised": {**WHOLE, "strategy.name": "joint"},
}


def run_missing(root: Path, seeds: list[int], jobs: int) -> None:
    """Run every (setting, way, seed) whose run folder has no result, several at a time."""
    backpack = str(Path(sys.executable).with_name("backpack"))

    def one(name: str, keys: dict[str, Any], seed: int) -> None:
        if (root / f"{name}-s{seed}" / "results.json").exists():
            return
        keys = {**keys, "run.name": name, "run.output-dir": root}
        values = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in keys.items()}
        changes = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        config = str(ROOT / "simulations" / "linceiver_k.toml")
        command = [backpack, "run", config, "--engine", "inprocess", "--seeds", str(seed), *changes]
        subprocess.run(command, check=True, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    runs = {setting.slug: setting.keys for setting in SETTINGS}
    runs |= {f"{s.slug}-{way}": {**s.keys, **keys} for s in SETTINGS if s.everywhere for way, keys in WAYS.items()}
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, name, keys, seed) for name, keys in runs.items() for seed in seeds]
        for future in futures:
            future.result()


def read(root: Path, name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Return the results of one setting, one for each seed."""
    return [json.loads((root / f"{name}-s{seed}" / "results.json").read_text(encoding="utf-8")) for seed in seeds]


def costs(root: Path, name: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Return the test evaluations of the federated arm, which carry what closed columns cost."""
    found = []
    for seed in seeds:
        lines = (root / f"{name}-s{seed}" / "events.jsonl").read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        found += [e for e in events if e["event"] == "evaluate" and e["split"] == "test" and e["arm"] == "federated"]
    return found


def per_client(results: list[dict[str, Any]], key: str) -> list[float]:
    """Average each client over the seeds."""
    rows = [[row[key] for row in one["clients"]] for one in results]
    return [statistics.fmean(values) for values in zip(*rows, strict=True)]


def by_modality(results: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Average a column of the results over clients and seeds, for all and for each modality."""
    rows = [row for one in results for row in one["clients"] if row[key] is not None]
    groups = {"all": rows, **{m: [row for row in rows if row["modality"] == m] for m in ("image", "text")}}
    return {name: statistics.fmean(row[key] for row in group) for name, group in groups.items() if group}


def table(root: Path, seeds: list[int], sizes: dict[str, dict[str, float]]) -> str:
    """Return the table of accuracy, k, size and speed as Markdown."""
    columns = ("setting", "federated (image / text)", "stand-alone", "Δ to k = 32", "p", "k (image / text)")
    head = "| " + " | ".join([*columns, "MACs", "kB", "step"]) + " |"
    lines = [head, "|---" * 9 + "|"]
    reference = per_client(read(root, REFERENCE, seeds), "accuracy")
    for setting in SETTINGS:
        results = read(root, setting.slug, seeds)
        accuracy, control = by_modality(results, "accuracy"), by_modality(results, "control")
        change = [own - other for own, other in zip(per_client(results, "accuracy"), reference, strict=True)]
        p = wilcoxon_p(change)
        pruned = setting.keys.get("model.adaptive-k", "prefix") in ("prefix", "hard-concrete")
        k = by_modality(results, "k") if pruned else None
        size = sizes[setting.slug]
        cells = [
            setting.name,
            f"{accuracy['all']:.3f} ({accuracy['image']:.3f} / {accuracy['text']:.3f})",
            f"{control['all']:.3f}",
            "" if setting.slug == REFERENCE else f"{100 * statistics.fmean(change):+.1f}",
            "" if p is None else f"{p:.2f}",
            f"{k['all']:.1f} ({k['image']:.1f} / {k['text']:.1f})" if k else "",
            f"{size['macs'] / 1e3:.0f} k",
            f"{size['bytes'] / 1e3:.0f}",
            f"{size['step']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def side_by_side(root: Path, seeds: list[int]) -> str:
    """Return test accuracies alone, federated and centralised as Markdown."""
    head = ("setting", "stand-alone", "federated backbone", "federated in class clusters", "joint backbone", "centralised")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for setting in (one for one in SETTINGS if one.everywhere):
        own = read(root, setting.slug, seeds)
        ways = [by_modality(read(root, f"{setting.slug}-{way}", seeds), "accuracy") for way in WAYS]
        found = [by_modality(own, "control"), by_modality(own, "accuracy"), *ways]
        cells = [f"{one['all']:.3f} ({one['image']:.3f} / {one['text']:.3f})" for one in found]
        lines.append("| " + " | ".join([setting.name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def pruning_table(root: Path, seeds: list[int]) -> str:
    """Return what removing closed columns changed, as Markdown."""
    lines = ["| setting | k before → after | MACs | parameters | bytes | ms, batch of 32 | largest logit change |"]
    lines.append("|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        events = [event for event in costs(root, setting.slug, seeds) if "macs_kept" in event]
        if not events:
            continue
        mean = {key: statistics.fmean(e[key] for e in events) for key in events[0] if isinstance(events[0][key], (int, float))}
        pairs = [f"{mean[f'{key}_full']:,.0f} → {mean[f'{key}_kept']:,.0f}" for key in ("macs", "parameters", "bytes")]
        times = f"{mean['milliseconds_full']:.2f} → {mean['milliseconds_kept']:.2f}"
        change = max(event["logit_change"] for event in events)
        cells = [setting.name, f"{mean['k_max']:.0f} → {mean['k']:.1f}", *pairs, times, f"{change:.0e}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(root: Path, seeds: list[int], path: Path) -> None:
    """Draw accuracy over k, one panel a modality: fixed k as a line, learned k as points, none as a level."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "back-pack"  # the same file for the same numbers
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(1, 2, figsize=(9, 4))
    for axis, modality in zip(axes, ("image", "text"), strict=True):
        for arm, style in (("accuracy", "o-"), ("control", "s--")):
            fixed = [(8, "k8"), (16, "k16"), (32, "k32"), (64, "k64")]
            values = [by_modality(read(root, slug, seeds), arm)[modality] for _, slug in fixed]
            label = "federated, fixed k" if arm == "accuracy" else "stand-alone, fixed k"
            axis.plot([k for k, _ in fixed], values, style, label=label, alpha=0.8)
        for slug, name, marker in (("learned32", "≤ 32", "*"), ("learned64", "≤ 64", "P"), ("hard32", "hard concrete", "X")):
            results = read(root, slug, seeds)
            k, value = by_modality(results, "k")[modality], by_modality(results, "accuracy")[modality]
            axis.plot([k], [value], marker, markersize=11, label=f"federated, learned k {name}")
        level = by_modality(read(root, "none", seeds), "accuracy")[modality]
        axis.axhline(level, color="gray", linestyle=":", label="federated, no low rank")
        axis.set(title=f"{modality} clients", xlabel="k (columns that attention reads)", ylabel="balanced test accuracy")
        axis.margins(y=0.1)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncol=3, fontsize=8)
    drawn.tight_layout(rect=(0, 0.13, 1, 1))
    drawn.savefig(path, metadata={"Date": None})


def measure_sizes(root: Path, seeds: list[int]) -> dict[str, dict[str, float]]:
    """Return MACs, bytes and the time of a training step of every setting, mean of an image and a text model.

    A learned k is measured after slicing at the mean k of its clients. Steps are interleaved; time is a ratio to ``none``.
    """
    import random
    import time

    import torch

    from config import parse
    from data_partition.text import VOCAB_SIZE
    from models.factory import build_model
    from models.linceiver import LinceiverIO
    from models.size import measure
    from models.slicing import slice_columns

    torch.set_num_threads(1)
    batch = {"image": torch.rand(32, 3, 32, 32), "text": torch.randint(1, VOCAB_SIZE, (32, 24))}
    batch["text"][:, 8:] = 0
    models: dict[tuple[str, str], torch.nn.Module] = {}
    for setting in SETTINGS:
        settings = parse({**ADAPTIVE, **setting.keys}).model
        pruned = settings.adaptive_k in ("prefix", "hard-concrete")
        k = by_modality(read(root, setting.slug, seeds), "k") if pruned else {}
        for modality in batch:
            model = build_model(settings, modality, 12, vocab_size=VOCAB_SIZE, max_tokens=24, seed=0)
            if pruned:
                assert isinstance(model, LinceiverIO)
                model = slice_columns(model, range(round(k[modality])))
            models[setting.slug, modality] = model
    found = {
        setting.slug: {
            key: statistics.fmean(getattr(measure(models[setting.slug, m], batch[m], 1), key) for m in batch)
            for key in ("macs", "bytes")
        }
        for setting in SETTINGS
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in models}
    order = list(models)
    for _ in range(60):
        random.shuffle(order)
        for slug, modality in order:
            model = models[slug, modality].train()
            start = time.process_time()
            model(batch[modality]).sum().backward()
            seconds[slug, modality].append(time.process_time() - start)
    for slug, size in found.items():
        ratios = [own / base for m in batch for own, base in zip(seconds[slug, m][5:], seconds["none", m][5:], strict=True)]
        size["step"] = statistics.median(ratios)
    return found


def main() -> None:
    """Run what is missing and write tables and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "linceiver_k", help="where run folders are kept")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    seeds = [int(part) for part in arguments.seeds.split(",")]
    root = arguments.runs.resolve()
    root.mkdir(parents=True, exist_ok=True)
    run_missing(root, seeds, arguments.jobs)
    update_page(PAGE, "accuracy", table(root, seeds, measure_sizes(root, seeds)))
    update_page(PAGE, "side by side", side_by_side(root, seeds))
    update_page(PAGE, "pruning", pruning_table(root, seeds))
    figure(root, seeds, FIGURE)


if __name__ == "__main__":
    main()
