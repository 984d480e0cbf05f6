"""Markdown tables of benchmarks/linceiver.py, and their place on a page that others write too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.records import CellRecord, Results, SliceRecord


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is aligned left, all others right."""
    lines = [header, ["---", *("--:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def names(cells: Iterable[CellRecord]) -> list[str]:
    """Return the contestants of all cells, each once, in order of first appearance in the fullest cell."""
    found: dict[str, None] = {}
    for cell in sorted(cells, key=lambda cell: -len(cell["contestants"])):
        found |= dict.fromkeys(record["name"] for record in cell["contestants"])
    return list(found)


def ratio_table(cells: Sequence[CellRecord], key: str, digits: int = 2) -> str:
    """One row per cell, one column per contestant, ``key`` in each; a contestant that a cell leaves out has a dash."""
    columns = names(cells)
    rows = []
    for cell in cells:
        values = {record["name"]: float(record[key]) for record in cell["contestants"]}  # type: ignore[literal-required]
        rows.append(
            [f"N={cell['tokens']}, M={cell['latents']}", *(f"{values[n]:.{digits}f}" if n in values else "–" for n in columns)]
        )
    return table(["", *columns], rows)


def cost_table(cells: Sequence[CellRecord]) -> str:
    """What the baseline costs in absolute numbers."""
    rows = []
    for cell in cells:
        base = cell["contestants"][0]
        rows.append(
            [
                f"N={cell['tokens']}, M={cell['latents']}",
                str(cell["batch"]),
                f"{base['cpu_ms']:.0f}",
                f"{base['saved_bytes'] / 2**20:.1f}",
                f"{base['macs'] / 1e6:.0f}",
                f"{base['parameters']:,}",
                str(cell["rounds"]),
            ]
        )
    return table(["", "batch", "ms", "saved MiB", "million MACs per sample", "parameters", "rounds"], rows)


def slice_table(records: Sequence[SliceRecord]) -> str:
    """Before and after the closed columns are removed."""
    rows = [
        [
            f"N={record['tokens']}",
            f"{record['before']['columns']} → {record['after']['columns']}",
            f"{record['before']['macs'] / 1e6:.1f} → {record['after']['macs'] / 1e6:.1f}",
            f"{record['before']['parameters']:,} → {record['after']['parameters']:,}",
            f"{record['before']['bytes']:,} → {record['after']['bytes']:,}",
            f"{record['before']['cpu_ms']:.1f} → {record['after']['cpu_ms']:.1f}",
            f"{record['ratio']:.2f}",
            f"{record['step_ratio']:.2f}",
            f"{record['logit_change']:.0e}",
        ]
        for record in records
    ]
    header = [
        "",
        "k",
        "million MACs",
        "parameters",
        "bytes",
        "forward ms",
        "ratio",
        "ratio of a training step",
        "logits change",
    ]
    return table(header, rows)


def requirement_table(results: Results) -> str:
    """What is required of the basis, and whether it holds."""
    rows = [
        [
            record["what"],
            f"≤ {record['limit']:g}",
            "not measured" if record["value"] is None else f"{record['value']:.4g}",
            {None: "", True: "yes", False: "**no**"}[record["holds"]],
        ]
        for record in results["requirements"]
    ]
    return table(["basis, k = 32, M = 128", "required", "measured", "holds"], rows)


def render(results: Results) -> str:
    """All tables of one run of the benchmark, as Markdown."""
    cells, versions = results["cells"], results["versions"]
    sizes = results["settings"]
    parts = [
        f"{results['device']}, {results['setting']}; Python {versions['python']}, PyTorch {versions['torch']}, "
        f"perceiver-pytorch {versions['perceiver-pytorch']}, transformers {versions['transformers']}. "
        f"D = {sizes['dim']}, L = {sizes['layers']}, latent heads {sizes['heads']} × {sizes['dim_head']}, cross-attention "
        f"{sizes['cross_heads']} × {sizes['cross_dim_head']}, GEGLU × {sizes['ff_mult']}. The number after a form is k.",
        "**Time** of forward and backward, ratio to perceiver-pytorch:",
        ratio_table(cells, "ratio"),
        "**Memory** kept from forward to backward, the same ratio:",
        ratio_table(cells, "saved_ratio"),
        "**Multiply-accumulates** of a forward pass, the same ratio:",
        ratio_table(cells, "macs_ratio"),
        "**Parameters**, the same ratio:",
        ratio_table(cells, "parameters_ratio", digits=3),
        "The baseline itself (= 1.00):",
        cost_table(cells),
        "**Required**:",
        requirement_table(results),
    ]
    if results["slices"]:
        parts += [
            f"**Removing closed columns** (basis with a prefix gate, M = {results['slices'][0]['latents']}):",
            slice_table(results["slices"]),
        ]
    if results["note"]:
        parts.append(results["note"])
    return "\n\n".join(parts)


def replace_section(page: str, name: str, text: str) -> str:
    """Return a page with new text between its markers ``<!-- name: begin … -->`` and ``<!-- name: end -->``.

    Raises:
        ValueError: the page does not have each marker once, in this order.
    """
    begin, end = f"<!-- {name}: begin", f"<!-- {name}: end"
    start, stop = page.find(begin), page.find(end)
    if page.count(begin) != 1 or page.count(end) != 1 or stop < start or "-->" not in page[start:stop]:
        raise ValueError(f"expected '{begin} -->' and '{end} -->' once each, in this order, in the page: put them back")
    after_begin = page.index("-->", start) + len("-->")
    return f"{page[:after_begin]}\n\n{text.strip()}\n\n{page[stop:]}"


def update_page(path: Path, name: str, text: str) -> None:
    """Write text between the markers of a page; the rest of it stays as it is.

    Raises:
        ValueError: the page has no such markers.
    """
    try:
        changed = replace_section(path.read_text(encoding="utf-8"), name, text)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    path.write_text(changed, encoding="utf-8")
