"""Between the typed config and Flower's flat mapping, TOML and the command line; every fault is told here."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from config.base import PROJECT_ROOT, ConfigError, Scalar, Section
from config.run_config import SECTIONS, RunConfig


def flatten(config: RunConfig) -> dict[str, Scalar]:
    """Return the config as Flower's flat mapping of dotted kebab-case keys to scalars."""
    return flatten_mapping(config.model_dump(by_alias=True))


def flatten_mapping(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Flatten nested tables to dotted keys; a list becomes a comma-separated string, as Flower has no lists."""
    flat: dict[str, Scalar] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten_mapping(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = ",".join(str(item) for item in value)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse(flat: Mapping[str, Any]) -> RunConfig:
    """Build the config from dotted keys; keys left out keep their defaults.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or range. Every fault is listed.
    """
    known = list(flatten(RunConfig()))
    faults = [_unknown_key(key, known) for key in flat if key not in known]
    nested: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        if key in known:
            section, _, name = key.partition(".")
            nested.setdefault(section, {})[name] = value
    sections: dict[str, Section] = {}
    for section, model in SECTIONS.items():
        try:
            sections[section] = model.model_validate(nested.get(section, {}))
        except ValidationError as error:
            faults += [_wrong_value(section, model, fault) for fault in error.errors()]
    if not faults:
        try:
            return RunConfig(**sections)  # type: ignore[arg-type]
        except ValidationError as error:
            faults += [_wrong_value("", RunConfig, fault) for fault in error.errors()]
    raise ConfigError("the run config is not valid:\n" + "\n".join(f"  - {fault}" for fault in faults))


def read_toml(path: Path) -> dict[str, Scalar]:
    """Read a simulation config (nested tables or dotted keys) as a flat mapping.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return flatten_mapping(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"no simulation config at {path}; the shipped ones are in {PROJECT_ROOT / 'simulations'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None


def parse_override(text: str) -> tuple[str, Scalar]:
    """Read one ``key=value`` of the command line; the value is TOML, and a bare word is a string.

    >>> parse_override("run.rounds=3"), parse_override("data.grouping=tri")
    (('run.rounds', 3), ('data.grouping', 'tri'))
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: expected key=value, for example run.rounds=3")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    if isinstance(value, list):
        value = ",".join(str(item) for item in value)
    return key.strip(), value


def to_toml(flat: Mapping[str, Scalar]) -> str:
    """Write dotted keys as TOML, one table a section, in the order of the config."""
    lines: list[str] = []
    section = ""
    for key, value in flat.items():
        table, _, name = key.partition(".")
        if table != section:
            section = table
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
        lines.append(f"{name} = {_toml_scalar(value)}")
    return "\n".join(lines) + "\n"


def _toml_scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return repr(value)


def _unknown_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"{key}: unknown key; the nearest valid key is {near[0]}"


def _wrong_value(section: str, model: type[Section], fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    key = str(fault["loc"][0])
    field = next(info for name, info in model.model_fields.items() if key in (name, name.replace("_", "-")))
    choices = get_args(field.annotation) if getattr(field.annotation, "__origin__", None) is Literal else ()
    expected = "one of " + ", ".join(map(str, choices)) if choices else str(fault["msg"]).removeprefix("Value error, ")
    found = fault["input"]
    return f"{section}.{key}: found {found!r} ({type(found).__name__}), expected {expected}"
