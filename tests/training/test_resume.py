"""What may change when a run is resumed: every flag and every config key is sorted."""

import argparse
import copy
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel
from tiny_models import text_and_rolloff, tiny_demo, tiny_vae
from tiny_runs import flags, make_corpus, run_training, write_text_config
from tiny_text_models import build_tiny_bert, build_tiny_t5

from saga_sr.config import ModelConfig, parse_model_config
from saga_sr.support.errors import UserError
from saga_sr.training.flags import build_parser
from saga_sr.training.metrics_csv import read_metrics
from saga_sr.training.resume import (
    CONFIG,
    FLAGS,
    Touches,
    config_touches,
    probes,
    refuse_changes,
    settings,
)

QUICK: dict[str, Any] = {"val_num_clips": 0, "val_num_train_clips": 0, "max_steps": 2}


def _flags_of_the_script() -> dict[str, argparse.Action]:
    actions = build_parser("summary\nexamples")._actions
    return {action.dest: action for action in actions if action.dest != "help"}


def _keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Dotted paths of all keys of the model JSON; * for a position in a list."""
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        sections = list(_sections(field.annotation))
        is_list = "tuple" in str(field.annotation)
        yield from [] if sections else [path]
        for section in sections:
            yield from _keys(section, f"{path}.*." if is_list else f"{path}.")


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


# --- the table ------------------------------------------------------------------------------------


def test_every_flag_is_sorted() -> None:
    assert set(FLAGS) == set(_flags_of_the_script())


def test_every_config_key_is_sorted_and_no_entry_is_stale() -> None:
    keys = list(_keys(ModelConfig))
    assert len(keys) > 60
    assert [key for key in keys if config_touches(key) is None] == []
    stale = [e for e in CONFIG if not any(k == e or k.startswith(f"{e}.") for k in keys)]
    assert stale == []


def _other_value(action: argparse.Action) -> Any:
    """Another value than the default."""
    if isinstance(action.default, bool) or action.nargs == 0:
        return not action.default
    if action.choices:
        return next(value for value in action.choices if value != action.default)
    return 77 if action.type in (int, float) else "another"


def _run_of(raw: dict[str, Any], **changes: Any) -> dict[str, Any]:
    argv = ["--train_dir", ".", "--model_config", "pyproject.toml"]
    options = build_parser("summary\nexamples").parse_args(argv)
    vars(options).update(changes)
    return settings(options, parse_model_config(raw)) | {"data": "d", "frozen": {}}


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_flag_may_change_exactly_where_it_does_not_change_what_is_learnt(name: str) -> None:
    """On a stage without text and on one with it; what a flag brings is compared elsewhere."""
    changes = {name: _other_value(_flags_of_the_script()[name])}
    for raw, has_text in ((tiny_demo(), False), (text_and_rolloff(tiny_demo()), True)):
        stored, current = _run_of(raw), _run_of(raw, **changes)
        of_product = name in ("batch_size", "accumulate_grad_batches", "devices", "num_nodes")
        must_stay = FLAGS[name] is Touches.LEARNT or (FLAGS[name] is Touches.TEXT and has_text)
        if must_stay or of_product:
            with pytest.raises(UserError, match="clips per optimiser" if of_product else name):
                refuse_changes(stored, current)
        else:
            refuse_changes(stored, current)


def _changed_leaf(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, "more"] if isinstance(value, list) else f"{value} other"


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        is_section = isinstance(one, dict) or (isinstance(one, list) and one and one[0] is not None)
        if is_section and (isinstance(one, dict) or isinstance(one[0], dict)):
            yield from _leaves(one, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("raw", [tiny_vae(), text_and_rolloff(tiny_demo())], ids=["F0", "F2"])
def test_config_key_may_change_exactly_where_the_table_says(raw: dict[str, Any]) -> None:
    stored = _run_of(raw)
    has_text = bool(raw["model"]["diffusion"]["cross_attention_cond_ids"])
    for path in _leaves(stored["config"]):
        current = copy.deepcopy(stored)
        node = current["config"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = _changed_leaf(node[path[-1]])
        dotted = ".".join(map(str, path))
        touches = config_touches(dotted)
        if touches is Touches.LEARNT or (touches is Touches.TEXT and has_text):
            with pytest.raises(UserError, match=dotted.replace(".", r"\.")):
                refuse_changes(stored, current)
        else:
            refuse_changes(stored, current)


def test_frozen_weights_are_compared_with_a_tolerance() -> None:
    weights = {"pretransform.a": torch.randn(30), "dit.b": torch.randn(4)}
    folded = {name: value * (1 + 1e-5) for name, value in weights.items()}
    other = weights | {"pretransform.a": torch.randn(30)}
    stored = _run_of(tiny_demo()) | {"frozen": probes(weights)}
    refuse_changes(stored, stored | {"frozen": probes(folded)})
    with pytest.raises(
        UserError, match=r"not trained \(pretransform\) are others.*pretrained_ckpt"
    ):
        refuse_changes(stored, stored | {"frozen": probes(other)})


def test_captions_are_the_same_file_by_another_spelling_or_copied(tmp_path: Path) -> None:
    raw = text_and_rolloff(tiny_demo())
    first, copied, other = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    for path, text in ((first, "x"), (copied, "x"), (other, "y")):
        path.write_text(text, encoding="utf-8")
    stored = _run_of(raw, caption_file=[first])
    for same in (tmp_path / "sub" / ".." / "a.jsonl", copied):
        refuse_changes(stored, _run_of(raw, caption_file=[same]))
    with pytest.raises(UserError, match="caption_file"):
        refuse_changes(stored, _run_of(raw, caption_file=[other]))


# --- real runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train() -> Any:
    """The script as a module."""
    return importlib.import_module("train_saga_sr")


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGA_SR_CACHE", str(tmp_path / "cache"))
    make_corpus(tmp_path)
    return tmp_path


def test_a_second_thought_about_validation_is_no_new_run(
    train: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan begins with --disable_val_lowfreq_replace and drops it later; the JSON by a path
    from elsewhere, the guidance, --learning_rate as it stands in the JSON anyway."""
    run = corpus / "run"
    run_training(train, flags(corpus, run, "--disable_val_lowfreq_replace", learning_rate=3e-4))
    before = {row[:2]: row[2] for row in read_metrics(run / "metrics.csv")}
    raw = json.loads((corpus / "config.json").read_text(encoding="utf-8"))
    raw["training"]["learning_rate"] = 3e-4
    raw["sampling"]["guidance_acoustic"] = 1.1
    moved = corpus / "moved.json"
    moved.write_text(json.dumps(raw), encoding="utf-8")
    monkeypatch.chdir(corpus)
    later = flags(Path(), run, checkpoint="last", max_steps=5, model_config="moved.json")
    assert run_training(train, later) == 0
    output = capsys.readouterr().out
    assert "disable_val_lowfreq_replace: true -> false" in output
    assert "sampling.guidance_acoustic" in output
    rows = read_metrics(run / "metrics.csv")
    assert len({row[:2] for row in rows}) == len(rows)  # measured anew, not twice
    after = {row[:2]: row[2] for row in rows}
    assert after[3, "val/lsd"] != before[3, "val/lsd"]
    assert after[3, "val/lsd_input"] == before[3, "val/lsd_input"]
    assert after[1, "val/lsd"] == before[1, "val/lsd"]


def test_resumed_run_that_ends_between_validations_says_the_last_numbers(
    train: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_training(train, flags(corpus, corpus / "run"))
    capsys.readouterr()
    run_training(train, flags(corpus, corpus / "run", checkpoint="last", max_steps=5))
    output = capsys.readouterr().out
    assert "val/lsd " in output
    assert "step 4)" in output


def test_text_encoder_by_another_name_is_the_same_and_another_one_is_not(
    train: Any, corpus: Path
) -> None:
    t5, elsewhere, other = corpus / "t5", corpus / "copy", corpus / "other"
    build_tiny_t5(t5, dim=24)
    build_tiny_t5(elsewhere, dim=24)
    build_tiny_t5(other, dim=24, seed=1)
    config = write_text_config(corpus, t5, compute_rolloff=False)
    run = corpus / "run"
    run_training(train, flags(corpus, run, model_config=config, **QUICK))
    later: dict[str, Any] = QUICK | {"checkpoint": "last", "max_steps": 3}
    config = write_text_config(corpus, elsewhere, compute_rolloff=False)
    assert run_training(train, flags(corpus, run, model_config=config, **later)) == 0
    config = write_text_config(corpus, other, compute_rolloff=False)
    with pytest.raises(UserError, match="t5_model_name"):
        run_training(train, flags(corpus, run, model_config=config, **later))


def test_stages_start_from_each_other_whatever_the_text_encoder_is_called(
    train: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F0 has no text; the JSON of F0 says t5-base, that of F1 a local folder of another width."""
    t5, wide = build_tiny_t5(corpus / "t5", dim=24), build_tiny_t5(corpus / "wide", dim=32)
    run_training(train, flags(corpus, corpus / "f0", **QUICK))
    config = write_text_config(corpus, t5, compute_rolloff=False)
    raw = json.loads(config.read_text(encoding="utf-8"))
    raw["model"]["conditioning"]["configs"][0]["config"] |= {"t5_model_name": str(wide), "dim": 32}
    config.write_text(json.dumps(raw), encoding="utf-8")
    f1 = flags(corpus, corpus / "f1", init_from=corpus / "f0/export", model_config=config, **QUICK)
    assert run_training(train, f1) == 0
    assert "has not trained it; it starts anew" in capsys.readouterr().out
    bert = build_tiny_bert(corpus / "bert", dim=24)
    other = {"model_name": str(bert), "dim": 24, "max_length": 12}
    raw["model"]["conditioning"]["configs"][0] |= {"type": "transformers", "config": other}
    config.write_text(json.dumps(raw), encoding="utf-8")
    f1 = flags(corpus, corpus / "b1", init_from=corpus / "f0/export", model_config=config, **QUICK)
    assert run_training(train, f1) == 0
    assert "anew" not in capsys.readouterr().out  # the same width: nothing of F0 is lost
    raw["model"]["conditioning"]["configs"][0] |= {
        "type": "t5",
        "config": {"t5_model_name": str(wide), "dim": 32, "max_length": 12},
    }
    raw["model"]["conditioning"]["configs"][0]["config"]["max_length"] = 9
    raw["model"]["diffusion"]["compute_rolloff"] = True
    config.write_text(json.dumps(raw), encoding="utf-8")
    f2 = flags(corpus, corpus / "f2", init_from=corpus / "f1/export", model_config=config, **QUICK)
    assert run_training(train, f2) == 0
    assert "max_length: 12 -> 9" in capsys.readouterr().out
    raw["model"]["diffusion"]["null_lr_value"] = 7.0
    config.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(UserError, match=r"another architecture.*null_lr_value"):
        run_training(train, [*f2, "--output_dir", str(corpus / "f3")])


def test_other_captions_are_another_run_and_another_course_is_said(
    train: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_text_config(corpus, build_tiny_t5(corpus / "t5", dim=24), compute_rolloff=False)
    raw = json.loads(config.read_text(encoding="utf-8"))
    raw["training"]["lr_schedule"]["cooldown_fraction"] = 0.5
    config.write_text(json.dumps(raw), encoding="utf-8")
    run, later = corpus / "run", QUICK | {"checkpoint": "last", "max_steps": 4}
    run_training(train, flags(corpus, run, model_config=config, **QUICK))
    assert run_training(train, flags(corpus, run, model_config=config, **later)) == 0
    assert "falls to zero from step 2 to 4, not from step 1 to 2" in capsys.readouterr().out
    (corpus / "train" / "0000.txt").write_text("something else", encoding="utf-8")
    with pytest.raises(UserError, match="the captions and transcripts of --train_dir are not"):
        run_training(train, flags(corpus, run, model_config=config, **later | {"max_steps": 5}))
