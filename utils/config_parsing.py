"""Reading a config: defaults, a JSON file, the command line; every mistake named, with a suggestion."""

import dataclasses
import functools
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from utils.common_utils import UserError, closest, read_json

Config = TypeVar("Config")


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Raise a `UserError` naming a config key and its value unless a condition holds."""
    if not condition:
        raise UserError(f"{key}={value}: {rule}")


def parse_config(config_class: type[Config], arguments: Sequence[str] | None = None, description: str = "") -> Config:
    """Read a config: defaults, then `--config FILE.json`, then `--group.key value`; `--help` documents every field.

    Raises:
        UserError: an unknown key, a wrong type or an impossible value, named, with a suggestion where one is near.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(description=description, exit_on_error=False, parser_mode="json", allow_abbrev=False)
    parser.add_argument("--config", action="config", help="JSON file with any of the options below")
    parser.add_class_arguments(config_class)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _check_files(config_class, arguments)
    try:
        namespace = parser.parse_args(arguments)
        namespace.pop("config", None)
        return config_class(**parser.instantiate_classes(namespace).as_dict())
    except UserError:
        raise
    except (ArgumentError, ValueError) as error:
        raise UserError(_explain(str(error), config_class)) from None


def _check_files(config_class: type, arguments: list[str]) -> None:
    """Name file and line of a JSON error, and unknown keys by file, before the command line is looked at."""
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            path = Path(arguments[index + 1])
        elif argument.startswith("--config="):
            path = Path(argument.removeprefix("--config="))
        else:
            continue
        content = read_json(path)
        json.loads(path.read_bytes(), object_pairs_hook=functools.partial(_without_repeats, path))
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
        _check_keys(config_class, content, str(path), "")


def _without_repeats(path: Path, pairs: list[tuple[str, object]]) -> dict:
    """Refuse an object that has a key twice, of which JSON would keep the last."""
    counts = Counter(key for key, _ in pairs)
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        raise UserError(f"{path}: {repeated[0]!r} is given {counts[repeated[0]]} times in one object; keep one")
    return dict(pairs)


def _check_keys(config_class: type, content: dict, source: str, prefix: str) -> None:
    fields = {item.name: item for item in dataclasses.fields(config_class)}
    for key, value in content.items():
        if key not in fields:
            raise UserError(f"{source}: unknown key {prefix}{key}.{_suggest(prefix + key, config_class, fields)}")
        kind = fields[key].type
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {prefix}{key}={value!r}: must be an object with options")
            _check_keys(kind, value, source, f"{prefix}{key}.")
        elif dataclasses.is_dataclass(item_kind := next(iter(get_args(kind)), None)) and isinstance(value, list):
            for index, item in enumerate(value):
                place = f"{prefix}{key}[{index}]"
                if not isinstance(item, dict) or not item:
                    raise UserError(f"{source}: {place}={item!r}: must be an object with at least one option")
                _check_keys(item_kind, item, source, place + ".")
        elif rule := _type_rule(value, kind):
            raise UserError(f"{source}: {prefix}{key}={json.dumps(value, ensure_ascii=False)}: must be {rule}")


def _type_rule(value: object, kind: object) -> str | None:
    """Return what a value of a JSON file must be; None if it is, or if the type is not one that configs are made of."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        rules = [_type_rule(value, part) for part in parts]
        return None if None in rules else " or ".join(rules)
    if origin is Literal:
        if value in parts:
            return None
        return f"one of {', '.join(map(repr, parts))}." + (closest(value, parts) if isinstance(value, str) else "")
    if origin is list:
        if not isinstance(value, list):
            return f"a list, such as {json.dumps([value], ensure_ascii=False)}"
        return next((f"a list, each {rule}" for item in value if (rule := _type_rule(item, parts[0]))), None)
    if origin is dict:
        return None if isinstance(value, dict) else "an object"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    accepted = (int, float) if kind is float else kind
    if kind not in names or (isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))):
        return None
    return names[kind]


def _suggest(key: str, root: type, siblings: dict) -> str:
    name = key.rpartition(".")[2]
    return closest(name, siblings) or closest(key, known_keys(root)) or f" Known here: {', '.join(siblings)}."


def known_keys(config_class: type, prefix: str = "") -> list[str]:
    """List the dotted names of all options."""
    keys = []
    for item in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(item.type):
            keys += known_keys(item.type, f"{prefix}{item.name}.")
        else:
            keys.append(prefix + item.name)
    return keys


def _explain(message: str, config_class: type) -> str:
    """Add the nearest known option to a message about an unknown one on the command line."""
    if "Expected a <class 'list'>" in message:
        return f"{message}\nA list is written as JSON: --key '[\"value\"]'"
    unknown = re.search(r"(?:[Uu]nrecognized arguments?:|[Kk]ey) '?(?:--)?([\w.]+)", message)
    if unknown and unknown.group(1) not in known_keys(config_class):
        return f"{message}." + closest(unknown.group(1), known_keys(config_class))
    return message
