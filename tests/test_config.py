"""The model's JSON: every shipped file is valid, every mistake is named, all at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import SHIPPED, changed, shipped, tiny_demo, tiny_vae

from saga_sr.config import load_model_config, parse_model_config, untrained_guidance
from saga_sr.support.errors import UserError

FULL = shipped("saga_model_config.json")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_is_valid_and_starts_at_f0(name: str) -> None:
    config = parse_model_config(shipped(name))
    assert not config.stage.text
    assert not config.stage.rolloff
    assert config.latent_length * config.downsampling_ratio == config.sample_size
    assert not untrained_guidance(config)


def test_full_config_has_the_dimensions_of_the_plan() -> None:
    dit = parse_model_config(FULL).model.diffusion.config
    assert (dit.embed_dim, dit.depth, dit.num_heads) == (1536, 24, 24)
    assert (dit.cond_token_dim, dit.global_cond_dim, dit.prepend_cond_dim) == (768, 1536, 1536)


@pytest.mark.parametrize(
    ("ids", "text"),
    [([], False), (["prompt"], True), (["prompt", "seconds_start", "seconds_total"], True)],
)
def test_stage_follows_from_one_key(ids: list[str], text: bool) -> None:
    raw = changed(FULL, model__diffusion__cross_attention_cond_ids=ids)
    assert parse_model_config(raw).stage.text is text


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"model__diffusion__config__global_cond_dim": 1024},
     "model.diffusion.config.global_cond_dim is 1024, but 2 global_cond_ids x cond_dim 768 = 1536"),
    ({"model__diffusion__config__embed_dims": 1536}, "embed_dims is not a known key"),
    ({"model__diffusion__config__num_heads": 7}, "num_heads is 7"),
    ({"model__diffusion__config__cond_token_dim": 700}, "cond_token_dim is 700"),
    ({"model__diffusion__config__io_channels": 32}, "io_channels is 32"),
    ({"model__diffusion__config__input_concat_dim": 65}, "input_concat_dim is 65"),
    ({"model__diffusion__config__prepend_cond_dim": 768}, "prepend_cond_dim is 768"),
    ({"model__diffusion__cross_attention_cond_ids": ["promt"]}, "'promt'"),
    ({"model__diffusion__global_cond_ids": ["prompt", "seconds_total"]}, "'prompt'"),
    ({"sample_size": 262145}, "nearest are 262144 and 264192"),
    ({"audio_channels": 1}, "audio_channels is 1"),
    ({"model__diffusion__diffusion_objective": "v"}, "rectified_flow"),
    (
        {"model__pretransform__config__encoder__config__strides": [2, 4, 4, 8, 4]},
        "multiply to 1024",
    ),
    ({"model__pretransform__config__encoder__config__latent_dim": 64}, "2 x 64"),
    ({"training__learning_rate": -1}, "training.learning_rate is -1"),
    ({"training__dropout": {"both_prob": 0.9, "lr_prob": 0.9}}, "sum to 1.85"),
    ({"training__timestep_sampler": "normal"}, "logit_normal"),
    ({"training__cfg_dropout_prob": 0.1}, "both_prob = lr_prob = text_prob = p / 2"),
    ({"training__sigma_distribution": "uniform"}, "training.timestep_sampler"),
    ({"sampling__target_rolloff": 1.0}, "sampling.target_rolloff is 1.0"),
    ({"sampling__target_rolloff": 0}, "training.dropout.rolloff_prob above 0"),
    ({"training__dropout": {"rolloff_prob": 1.5}}, "training.dropout.rolloff_prob is 1.5"),
    ({"sample_rate": "44100 Hz"}, 'sample_rate is "44100 Hz"'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[next(iter(c)) for c, _ in BROKEN])
def test_mistake_is_named_with_path_and_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_model_config(changed(FULL, **change))
    assert message in str(error.value)


def test_all_mistakes_are_reported_at_once() -> None:
    """A wrong type, an unknown key and a broken relation, though each alone would be an error."""
    raw = changed(
        FULL, sample_rate="x", model__diffusion__config__global_cond_dim=1024, training__typo=1
    )
    with pytest.raises(UserError) as error:
        parse_model_config(raw, origin="my.json")
    text = str(error.value)
    assert "my.json: 3 problems" in text
    for part in ("sample_rate", "global_cond_dim is 1024", "training.typo is not a known key"):
        assert part in text


def test_missing_key_is_named() -> None:
    raw = changed(FULL)
    del raw["model"]["diffusion"]["config"]["depth"]
    with pytest.raises(UserError, match=r"model\.diffusion\.config\.depth is missing"):
        parse_model_config(raw)


@pytest.mark.parametrize("content", ["{", "[]", "null", "3", '"text"', "\ufeff{}", "[" * 5000])
def test_no_config_is_a_clear_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "配置.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="配置"):
        load_model_config(path)


def test_binary_and_absent_files_are_clear_errors(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load_model_config(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_model_config(tmp_path / "absent.json")


@pytest.mark.parametrize("raw", [tiny_demo(), tiny_vae(), FULL])
def test_config_survives_its_own_json(raw: dict[str, Any]) -> None:
    config = parse_model_config(raw)
    assert parse_model_config(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("emulated", "expected"), [(None, None), (8, 16), (20, 40), (1, 2)], ids=str
)
def test_more_steps_keep_the_shape_of_the_schedule(
    emulated: int | None, expected: int | None
) -> None:
    raw = tiny_demo(sampling__num_steps=8, sampling__emulate_linear_steps=emulated)
    sampling = parse_model_config(raw).with_num_steps(16).sampling
    assert (sampling.num_steps, sampling.emulate_linear_steps) == (16, expected)
    assert parse_model_config(raw).with_num_steps(1).sampling.num_steps == 1  # not 0 emulated
    with pytest.raises(UserError, match=r"sampling\.num_steps is 0"):
        parse_model_config(raw).with_num_steps(0)


def test_replacing_validates_the_new_value() -> None:
    config = parse_model_config(FULL)
    assert config.replacing("model.diffusion.compute_rolloff", True).stage.rolloff
    with pytest.raises(UserError, match="sample_size is 5"):
        config.replacing("sample_size", 5)


@pytest.mark.parametrize(
    ("text", "dropout", "guidance", "needs"),
    [
        (False, {"both_prob": 0, "lr_prob": 0}, {"guidance_acoustic": 1.4}, "guidance_acoustic"),
        (False, {"both_prob": 0, "lr_prob": 0.1}, {"guidance_acoustic": 1.4}, None),
        (True, {"both_prob": 0}, {"guidance_acoustic": 1.4, "guidance_text": 1.4},
         "guidance_acoustic"),
        (True, {"text_prob": 0}, {"guidance_acoustic": 1.0, "guidance_text": 1.2}, "guidance_text"),
        (True, {"both_prob": 0, "text_prob": 0, "lr_prob": 0},
         {"guidance_acoustic": 1, "guidance_text": 1}, None),
    ],
)  # fmt: skip
def test_guidance_needs_a_branch_that_dropout_trained(
    text: bool, dropout: dict[str, float], guidance: dict[str, float], needs: str | None
) -> None:
    raw = changed(FULL, model__diffusion__cross_attention_cond_ids=["prompt"] * text)
    raw["training"]["dropout"] |= dropout
    raw["sampling"] |= guidance
    problems = untrained_guidance(parse_model_config(raw))
    assert bool(problems) is bool(needs)
    assert all(needs in problem for problem in problems)


def test_config_is_read_without_torch() -> None:
    code = "import sys, saga_sr.config; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
