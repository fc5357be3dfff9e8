"""Variants of a config as data: overrides by dotted key, and a training made shorter as a whole."""

import copy
import math
from collections.abc import Mapping

from utils.common_utils import UserError, closest

_EACH = "[*]"


def apply_overrides(config: Mapping, overrides: Mapping[str, object], source: str) -> dict:
    """Return a copy of a config, as its JSON file has it, with options set by dotted key.

    `data.stages[*].reasoning_share` sets the option in each item of a list. A value `{"times": 0.5}` multiplies the
    number that is there; whole numbers are rounded up.

    Args:
        source: names the overrides in messages.

    Raises:
        UserError: a key leads through something that is no object or no list, or there is no number to multiply.
    """
    result = copy.deepcopy(dict(config))
    for key, value in overrides.items():
        _set(result, key.split("."), value, f"{source}: {key}")
    return result


def _set(node: object, path: list[str], value: object, place: str) -> None:
    name, rest = path[0].removesuffix(_EACH), path[1:]
    if not isinstance(node, dict):
        raise UserError(f"{place}: {name!r} is looked for in {node!r}, which is no object")
    if path[0].endswith(_EACH):
        items = node.get(name)
        if not rest or not isinstance(items, list) or not items:
            raise UserError(f"{place}: {name!r} must be a list with items, and an option of theirs must follow")
        for item in items:
            _set(item, rest, value, place)
    elif rest:
        _set(node.setdefault(name, {}), rest, value, place)
    elif isinstance(value, dict) and value.keys() == {"times"}:
        node[name] = _multiplied(node, name, value["times"], place)
    else:
        node[name] = copy.deepcopy(value)


def _multiplied(node: dict, name: str, factor: float, place: str) -> float:
    before = node.get(name)
    if isinstance(before, bool) or not isinstance(before, int | float):
        hint = closest(name, node)
        raise UserError(f"{place}: there is no number to multiply, but {before!r}; set it outright.{hint}")
    # Rounded before it is rounded up: 3 * 1.1 is a little more than 3.3, and 10 * 1.1 a little more than 11.
    return math.ceil(round(before * factor, 9)) if isinstance(before, int) else before * factor


def shorten(config: Mapping, num_steps: int) -> dict:
    """Return a training config of `num_steps` with stages, warm-up and intervals shortened in proportion.

    Raises:
        UserError: there are more stages than steps.
    """
    result = copy.deepcopy(dict(config))
    factor = num_steps / config["num_steps"]
    result["num_steps"] = num_steps
    stages = result.get("data", {}).get("stages", [])
    for stage in stages[-1:]:
        stage.pop("steps", None)  # it lasts to the end
    counts = [(stage, "steps") for stage in stages[:-1]]
    counts += [(result.get("optim", {}), "num_warmup_steps")]
    counts += [(result.get("checkpoint", {}), key) for key in ("save_every", "validate_every")]
    for options, key in counts:
        if key in options:
            least = 0 if key == "num_warmup_steps" else 1
            options[key] = max(least, round(options[key] * factor))
    if "num_warmup_steps" in result.get("optim", {}):
        # Rounding must not make a warm-up as long as the training, which is refused.
        result["optim"]["num_warmup_steps"] = min(result["optim"]["num_warmup_steps"], num_steps - 1)
    if len(stages) > num_steps:
        raise UserError(f"num_steps={num_steps}: fewer than the stages of the training; take more")
    return result
