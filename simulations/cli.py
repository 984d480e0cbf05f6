"""The ``backpack`` command. Nothing heavy is imported before a command needs it: ``--help`` must be quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from config import ConfigError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Back-Pack: federated, multimodal, continual learning on Flower.",
)

USAGE_FAULT, RUN_FAULT = 2, 1


@app.callback()
def _root() -> None:
    """Back-Pack: federated, multimodal, continual learning on Flower."""


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="a simulation config, such as simulations/linceiver.toml")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over the config; may be repeated")] = None,
    seeds: Annotated[str, typer.Option(help="comma-separated run seeds, one run each; default: run.seed")] = "",
    engine: Annotated[str, typer.Option(help="flower (Ray, through flwr run) or inprocess")] = "flower",
    federation: Annotated[
        Path | None, typer.Option(help="what the machine has, such as simulations/federations/one_gpu.toml; over the config")
    ] = None,
) -> None:
    """Run a simulation config; the exit code is 0 only if every run completed."""
    from simulations import runner

    if engine not in ("flower", "inprocess"):
        raise ConfigError(f"--engine {engine!r}: expected flower or inprocess")
    configs = [runner.prepare(config, set_ or [], seed, federation) for seed in runner.parse_seeds(seeds)]
    runner.run_all(configs, engine)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="run folders; runs that differ only in run.seed are seeds of one setting")
    ],
    format_: Annotated[str, typer.Option("--format", help="table, md, csv, json or latex")] = "table",
    transfer: Annotated[
        bool, typer.Option("--transfer", help="of Back-Pack runs: what choices, scorers and directions gain, with tests")
    ] = False,
) -> None:
    """Print one table of several runs: mean ± sd over seeds, difference and paired test over clients, bytes, seconds."""
    if transfer:
        from simulations import comparison_transfer

        comparison_transfer.main(runs, format_)
        return
    from simulations import comparison

    comparison.main(runs, format_)


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(help="run folders, finished or not")]) -> None:
    """Write RUN/report.html for each run: one file with its table, curves, streams of tasks and byte ledger."""
    from simulations import report as reports

    reports.main(runs)


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="a data set, such as emojipairs or cub, or a simulation config")],
    data_dir: Annotated[str, typer.Option(help="folder of the data files: data.data-dir")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as data.seed=1; may be repeated")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the pictures; default: data-NAME")] = None,
) -> None:
    """Show a data set: classes, counts, bad rows, what each client gets, a contact sheet and a plot of labels."""
    from simulations import data_look

    data_look.main(name, data_dir, set_ or [], out)


def main() -> None:
    """Run the command line; turn expected errors into one message and an honest exit code."""
    try:
        app()
    except ConfigError as error:
        _stop(error, USAGE_FAULT)
    except (OSError, RuntimeError, ValueError) as error:
        _stop(error, RUN_FAULT)


def _stop(error: Exception, code: int) -> None:
    sys.stderr.write(f"backpack: {error}\n")
    sys.exit(code)
