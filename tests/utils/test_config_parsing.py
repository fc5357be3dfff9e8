"""Configs: what overrides what, every mistake named, every option documented."""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import json
from pathlib import Path

import pytest

from dataset.batch_plan import Stage
from model.compute import ComputeConfig
from model.config import E2LLMConfig
from pefts import e2llm_args, eval_args
from pefts.e2llm_args import TrainConfig
from pefts.eval_args import EvalConfig, EvalTask
from utils.common_utils import UserError
from utils.config_parsing import known_keys, parse_config

ROOT = Path(__file__).parents[2]
TRAIN = {
    "output_dir": "out",
    "num_steps": 5,
    "model": {"encoder": "e", "decoder": "d"},
    "data": {"train": ["store"]},
    "optim": {"num_warmup_steps": 1},
}
EVAL = {"checkpoint": "c", "output_dir": "out", "tasks": [{"name": "a", "data": ["store"], "metrics": ["f1"]}]}
CONFIG_CLASSES = [
    *(kind for kind in vars(e2llm_args).values() if dataclasses.is_dataclass(kind)),
    *(kind for kind in vars(eval_args).values() if dataclasses.is_dataclass(kind) and kind is not ComputeConfig),
    *(E2LLMConfig, ComputeConfig, Stage),
]


@pytest.fixture
def parse(tmp_path):
    """Return a function that parses a config file's content with further arguments."""

    def parse_content(content: dict | str | bytes, *arguments: str, config_class=TrainConfig):
        path = tmp_path / "config.json"
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return parse_config(config_class, ["--config", str(path), *arguments])

    return parse_content


def with_options(**groups) -> dict:
    """The smallest training config with options on top, group by group."""
    merged = dict(TRAIN)
    for group, options in groups.items():
        merged[group] = merged.get(group, {}) | options if isinstance(options, dict) else options
    return merged


def test_command_line_over_file_over_default(parse):
    config = parse(
        with_options(optim={"learning_rate": 0.5, "beta1": 0.5}, num_steps=9), "--optim.beta1", "0.25", "--seed", "7"
    )
    assert (config.optim.learning_rate, config.optim.beta1, config.optim.beta2) == (0.5, 0.25, 0.999)
    assert (config.num_steps, config.seed) == (9, 7)
    assert parse_config(TrainConfig, arguments_of(TRAIN)) == parse(TRAIN)


def arguments_of(content: dict, prefix: str = "--") -> list[str]:
    arguments = []
    for key, value in content.items():
        if isinstance(value, dict):
            arguments += arguments_of(value, f"{prefix}{key}.")
        else:
            arguments += [prefix + key, value if isinstance(value, str) else json.dumps(value)]
    return arguments


def test_values_get_their_types(parse):
    stages = [{"steps": 3, "max_window_chunks": 9}, {"reasoning_share": 1}]
    config = parse(with_options(data={"stages": stages, "prompt_files": {"default": "p.txt"}}, optim={"eps": 1}))
    assert config.data.stages == [Stage(steps=3, max_window_chunks=9), Stage(reasoning_share=1.0)]
    assert config.data.prompt_files == {"default": "p.txt"}
    assert isinstance(config.optim.eps, float)
    assert parse(TRAIN, "--resume", "none").resume == "none"
    config = parse(EVAL, "--modes", '["closed_book"]', "--overwrite", "true", config_class=EvalConfig)
    assert config.tasks == [EvalTask(name="a", data=["store"], metrics=["f1"])]
    assert (config.modes, config.overwrite) == (["closed_book"], True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_options(optim={"learning_rat": 1}), r"config.json: unknown key optim.learning_rat. .*'learning_rate'\?"),
        (with_options(sead=1), r"config.json: unknown key sead. Did you mean 'seed'\?"),
        (with_options(zzz=1), r"config.json: unknown key zzz. Known here: output_dir, model, data"),
        (with_options(learning_rate=1), r"unknown key learning_rate. Did you mean 'optim.learning_rate'\?"),
        (with_options(data={"stages": [{"steps": 1}, {"stps": 1}]}), r"key data.stages\[1\].stps. .*'steps'\?"),
        (with_options(data={"stages": [3]}), r"config.json: data.stages\[0\]=3: must be an object"),
        (with_options(data={"stages": [{}]}), r"config.json: data.stages\[0\]={}: must be an object with at least one"),
        (with_options(data={"stages": []}), r"data.stages=\[\]: name at least one stage"),
        (with_options(optim=3), r"config.json: optim=3: must be an object"),
        (with_options(optim=None), r"config.json: optim=None: must be an object"),
        ("[1]", r"config.json: expected a JSON object, found list"),
        ('{"num_steps": 3,\n "x" }', r"config.json:2: not valid JSON \(Expecting ':' delimiter at column 6\)"),
        (b'{"output_dir": "\xff"}', r"config.json: not valid UTF-8"),
        (with_options(optim={"learning_rate": "fast"}), r'json: optim.learning_rate="fast": must be a number'),
        (with_options(num_steps=2.5), r"config.json: num_steps=2.5: must be a whole number"),
        (with_options(num_steps=True), r"config.json: num_steps=true: must be a whole number"),
        (
            with_options(data={"train": "store"}),
            r'config.json: data.train="store": must be a list, such as \["store"\]',
        ),
        (with_options(data={"train": [1]}), r"config.json: data.train=\[1\]: must be a list, each a text"),
        (with_options(data={"stages": [{"steps": "a"}]}), r'json: data.stages\[0\].steps="a": must be a whole number'),
        (with_options(data={"stages": {}}), r"config.json: data.stages={}: must be a list"),
        (with_options(optim={"schedule": "cosin"}), r"one of 'cosine', 'linear', 'constant'. Did you mean 'cosine'\?"),
        (with_options(logging={"wandb_project": 3}), r"logging.wandb_project=3: must be a text or null"),
        ('{"num_steps": 3, "num_steps": 4}', r"config.json: 'num_steps' is given 2 times in one object; keep one"),
        (with_options(optim={"learning_rate": -1}), r"^optim.learning_rate=-1.0: must be above 0$"),
        (
            with_options(data={"stages": [{"reasoning_share": 2}]}),
            r"^data.stages: reasoning_share=2.0 must lie between",
        ),
        (
            with_options(data={"stages": [{"steps": 5}, {"steps": 0}]}),
            r"^num_steps=5: the stages before the last take 5",
        ),
        (
            with_options(data={"stages": [{"steps": 2}, {"steps": 2}]}),
            r"^num_steps=5: the stages take 2 \+ 2 steps; the last one lasts to the end",
        ),
        (with_options(seed=-1), r"^seed=-1: must lie between 0 and"),
        (with_options(model={"templates": {"qa": "{prompt}"}}), r"model.templates\['qa'\]: .*{context} 0 times"),
        ({key: value for key, value in TRAIN.items() if key != "num_steps"}, r"required: num_steps"),
        (with_options(model={"encoder": None}), r"config.json: model.encoder=null: must be a text"),
    ],
)
def test_mistakes_in_a_file_are_named(parse, content, message):
    with pytest.raises(UserError, match=message):
        parse(content)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.learning_rat", "1"], r"--optim.learning_rat 1. Did you mean 'optim.learning_rate'\?"),
        (["--optm.learning_rate", "1"], r"--optm.learning_rate 1. Did you mean 'optim.learning_rate'\?"),
        (["--learning_rate=1"], r"--learning_rate=1. Did you mean 'optim.learning_rate'\?"),
        (["--conf", "x.json"], r"--conf x.json"),
        (["extra"], r"extra"),
        (["--optim.learning_rate", "fast"], r'"optim.learning_rate"(.|\n)*fast'),
        (["--data.train", "store"], r"data.train(.|\n)*A list is written as JSON"),
        (["--num_steps", "0"], r"^num_steps=0: must be at least 1$"),
        (["--checkpoint.keep_last", "0"], r"^checkpoint.keep_last=0: must be at least 1$"),
        (["--data.stages", '[{"stps": 3}]'], r"data.stages(.|\n)*stps"),
        (["--config", "/no/such.json"], r"/no/such.json: no such file"),
        (["--config=/no/such.json"], r"/no/such.json: no such file"),
        (["--config", "/"], r"/: Is a directory"),
        (["--config"], r"config: expected one argument"),
    ],
)
def test_mistakes_on_the_command_line_are_named(parse, arguments, message):
    with pytest.raises(UserError, match=message):
        parse(TRAIN, *arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": ["open_book"]}, r"modes(.|\n)*'model', 'closed_book'"),
        ({"modes": []}, r"^modes=\[\]: name at least one$"),
        ({"tasks": []}, r"^tasks=\[\]: name at least one$"),
        ({"tasks": EVAL["tasks"] * 2}, r"^tasks=\['a', 'a'\]: two tasks have the same name$"),
        ({"tasks": [{"name": "a", "data": ["s"]}]}, r"tasks(.|\n)*required: metrics"),
        ({"tasks": [EVAL["tasks"][0] | {"metric": 1}]}, r"key tasks\[0\].metric. Did you mean 'metrics'\?"),
        ({"tasks": [EVAL["tasks"][0] | {"metrics": []}]}, r"^tasks: metrics=\[\]: name at least one$"),
        ({"sampling": {"top_p": 0}}, r"^sampling.top_p=0.0: must lie in \(0, 1\]$"),
        ({"reconstruction": {"windows": [1, 0]}}, r"^reconstruction.windows=\[1, 0\]: must be at least 1$"),
    ],
)
def test_mistakes_in_an_evaluation_are_named(parse, changes, message):
    with pytest.raises(UserError, match=message):
        parse(EVAL | changes, config_class=EvalConfig)


def help_text(config_class: type, option: str = "--help") -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as caught:
        parse_config(config_class, [option])
    assert caught.value.code in (0, None)
    return " ".join(output.getvalue().split())


def field_docstrings(config_class: type) -> dict[str, str]:
    """Return the string that stands under each field in the source."""
    body = ast.parse(inspect.getsource(config_class)).body[0].body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


@pytest.mark.parametrize("config_class", CONFIG_CLASSES, ids=lambda kind: kind.__name__)
def test_every_option_has_a_docstring(config_class):
    documented = field_docstrings(config_class)
    names = {item.name for item in dataclasses.fields(config_class)}
    assert names
    assert names == set(documented)
    assert all(len(text) > 10 for text in documented.values())


def test_all_config_classes_are_looked_at():
    """A dataclass that a config reaches and the test above does not see would go undocumented."""
    reached = {TrainConfig, EvalConfig}
    for kind in list(reached):
        for key in known_keys(kind):
            *groups, _ = key.split(".")
            owner = kind
            for group in groups:
                owner = {item.name: item.type for item in dataclasses.fields(owner)}[group]
                reached.add(owner)
    assert reached <= set(CONFIG_CLASSES)
    assert {Stage, EvalTask} <= set(CONFIG_CLASSES)


@pytest.mark.parametrize("config_class", [TrainConfig, EvalConfig])
def test_help_lists_every_option_with_its_docstring(config_class):
    text = help_text(config_class)
    keys = known_keys(config_class)
    assert len(keys) > 15
    for key in keys:
        assert f"--{key} " in text, key
        *groups, name = key.split(".")
        owner = config_class
        for group in groups:
            owner = {item.name: item.type for item in dataclasses.fields(owner)}[group]
        # Long words may be broken at a hyphen or not at all: the first ones are enough.
        assert " ".join(field_docstrings(owner)[name].split()[:5]) in text, key


@pytest.mark.parametrize(
    ("config_class", "key", "item"), [(TrainConfig, "data.stages", Stage), (EvalConfig, "tasks", EvalTask)]
)
def test_help_for_the_items_of_a_list(config_class, key, item):
    assert f"--{key}.help" in help_text(config_class)
    text = help_text(config_class, f"--{key}.help")
    for name, docstring in field_docstrings(item).items():
        assert name in text
        assert " ".join(docstring.split()[:5]) in text


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*config*.json")), ids=lambda path: path.name)
def test_shipped_configs_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = json.loads(path.read_text())
    config = parse_config(TrainConfig if "num_steps" in content else EvalConfig, ["--config", str(path)])
    assert config.output_dir == content["output_dir"]
    for file in getattr(getattr(config, "data", None), "prompt_files", {}).values():
        assert Path(file).is_file()
    for task in getattr(config, "tasks", []):
        assert set(task.metrics) <= set(importlib.import_module("evaluate.scoring").METRICS)


def test_there_are_configs_for_training_and_evaluation():
    names = {path.name for path in (ROOT / "configs").glob("*.json")}
    assert {"train_config.json", "eval_config.json", "lora_modules.json"} <= names
