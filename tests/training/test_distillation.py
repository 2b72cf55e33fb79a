"""A student of an exported model, from its flags to the audio that it restores."""

import importlib
import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import built, changed, text_and_rolloff, tiny_demo, tiny_levels, tiny_vae
from tiny_runs import flags, run_training
from tiny_text_models import build_tiny_t5

from saga_sr.config import parse_model_config, student_config
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.restore import restore, segment_noise
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import torch_generator
from saga_sr.training.distillation import learn_from
from saga_sr.training.early import refuse_early
from saga_sr.training.flags import parse_options
from saga_sr.training.metrics_csv import read_metrics
from saga_sr.upsample.options import UpsampleOptions, upsample
from saga_sr.weights import load_teacher

QUICK: dict[str, Any] = {"val_num_clips": 0, "val_num_train_clips": 0, "max_steps": 2}
GUIDED = {"sampling__guidance_acoustic": 1.4, "sampling__guidance_text": 1.2}


@pytest.fixture(scope="module")
def train() -> Any:
    return importlib.import_module("train_saga_sr")


def _exported(raw: dict[str, Any], folder: Path) -> Path:
    return built(raw).save_pretrained(folder)


def _student(raw: dict[str, Any], folder: Path) -> tuple[SAGASRModel, SAGASRModel]:
    """A new student, and the teacher of random weights that it starts from."""
    _exported(raw, folder)
    config = student_config(parse_model_config(raw), [1, 2, 4])
    student = SAGASRModel(config)
    return student.eval(), load_teacher(student, folder)


def _inputs(model: SAGASRModel) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch_generator("inputs")
    lr_audio = 0.1 * torch.randn(
        2, model.config.audio_channels, model.config.sample_size, generator=generator
    )
    text = torch.randn(2, 12, 24, generator=generator) if model.config.stage.text else None
    cond = model.condition(lr_audio, text, passband_hz=torch.tensor([4000.0, 8000.0]))
    return torch.randn(cond.lr_latent.shape, generator=generator), torch.tensor([1.0, 0.5]), cond


@pytest.mark.parametrize("raw", [tiny_demo(), text_and_rolloff(tiny_vae())])
def test_a_student_starts_as_its_teacher_and_can_hear_how_long_its_step_is(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    student, teacher = _student(raw, tmp_path)
    x_t, t, cond = _inputs(student)
    expected = teacher.velocity(x_t, t, cond)
    for until in (None, t, t / 2, 0 * t):
        torch.testing.assert_close(student.velocity(x_t, t, cond, until=until), expected)
    assert student.step_embed is not None
    torch.nn.init.normal_(student.step_embed.weight)
    long, short = (student.velocity(x_t, t, cond, until=t * part) for part in (0, 0.5))
    assert (long - short).abs().amax() > 0.01
    at_once = student.velocity(x_t, t, cond)  # no step: the velocity itself
    torch.testing.assert_close(at_once, student.velocity(x_t, t, cond, until=t))


def test_lessons_start_from_the_noise_that_sampling_starts_from(tmp_path: Path) -> None:
    """With a temperature of 0 a student meets levels without noise, and never any others."""
    raw = tiny_levels(sampling__level_temperature=0.0)
    student, teacher = _student(raw, tmp_path)
    noise, _, cond = _inputs(student)
    cond = replace(cond, frame=student.frame(cond))
    z_h = torch.randn(noise.shape, generator=torch_generator("z_h"))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    velocity = student.velocity

    def watched(x_t: torch.Tensor, t: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        seen.append((x_t, t))
        return velocity(x_t, t, *rest, **named)

    student.velocity = watched  # type: ignore[method-assign]
    options = Namespace(seed=0, teacher_steps=2)
    module: Any = Namespace(
        model=student, options=options, config=Namespace(model=student.config.model),
        counted=lambda batch, loss: loss,
    )  # fmt: skip
    batch: Any = (None, [{"draw": 0}, {"draw": 1}])
    learn_from(teacher, module, batch, (z_h, cond, noise, torch.zeros(2, dtype=torch.bool)))
    ((x_t, t),) = seen
    is_level = student.family.start(torch.ones_like(noise[0]), 0.0) == 0
    clean = (1 - t)[:, None, None] * cond.frame.enter(z_h)
    assert is_level.any()
    torch.testing.assert_close(x_t[:, is_level], clean[:, is_level])
    assert not torch.allclose(x_t[:, ~is_level], clean[:, ~is_level])


def test_distilled_at_f2_with_a_thin_vae_and_resumed(
    train: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text, both roll-offs, guidance of three branches; a stop changes nothing."""
    raw = text_and_rolloff(tiny_vae(**GUIDED, training__learning_rate=1e-3))
    t5 = str(build_tiny_t5(corpus / "t5", dim=24))
    raw["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = t5
    _exported(raw, corpus / "teacher")
    extra = ["--distill_from", str(corpus / "teacher"), "--distill_steps", "2", "4"]
    config = corpus / "teacher/config.json"
    argv = flags(corpus, corpus / "whole", *extra, model_config=config, max_steps=4)
    assert run_training(train, argv) == 0
    assert "s_a = 1.4, s_t = 1.2" in capsys.readouterr().out
    parts = flags(corpus, corpus / "parts", *extra, model_config=config, max_steps=2)
    assert run_training(train, parts) == 0
    parts = flags(corpus, corpus / "parts", *extra, model_config=config, max_steps=4)
    assert run_training(train, [*parts, "--checkpoint", "last"]) == 0
    whole, resumed = (
        SAGASRModel.from_pretrained(corpus / name / "export") for name in ("whole", "parts")
    )
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, resumed.state_dict()[name])
    assert whole.config.model.diffusion.student_steps == (2, 4)
    assert whole.step_embed is not None
    assert whole.step_embed.weight.any()
    losses = [v for _, n, v in read_metrics(corpus / "whole/metrics.csv") if n == "train/loss"]
    assert len(losses) == 4
    assert all(loss > 0 for loss in losses)
    other = _exported(raw | {"sample_size": 4096}, corpus / "other")
    assert other != corpus / "teacher"
    model = SAGASRModel.from_pretrained(other)
    torch.nn.init.normal_(model.dit.postprocess_conv.weight)
    model.save_pretrained(other)
    argv = flags(corpus, corpus / "whole", "--distill_from", str(other), "--distill_steps", "2",
                 "4", "--checkpoint", "last", model_config=config, max_steps=6)  # fmt: skip
    with pytest.raises(UserError, match=r"weights that are not trained .*teacher"):
        run_training(train, argv)


def test_a_student_restores_files_of_any_length_with_its_own_steps_only(tmp_path: Path) -> None:
    raw = text_and_rolloff(tiny_demo(**GUIDED))
    student, _ = _student(raw, tmp_path)
    assert student.step_embed is not None
    torch.nn.init.normal_(student.step_embed.weight)
    sampling = student.config.sampling
    assert (sampling.solver, sampling.num_steps, sampling.emulate_linear_steps) == ("euler", 4, 4)
    assert (sampling.guidance_acoustic, sampling.guidance_text) == (1.0, 1.0)
    audio = 0.1 * torch.randn(1, 15_000, generator=torch_generator("long"))
    options = UpsampleOptions(input_cutoff_hz=4000.0)
    evaluations: list[int] = []
    in_batches = upsample(
        student, audio, 44100, options, lambda now, all_: evaluations.append(all_)
    )
    one_by_one = upsample(student, audio, 44100, replace(options, window_batch=1))
    torch.testing.assert_close(in_batches, one_by_one, atol=1e-4, rtol=1e-4)
    assert evaluations[0] == 4 * 5  # five windows of four steps, one branch
    longer = upsample(student, audio, 44100, replace(options, num_steps=8))
    assert not torch.allclose(longer, in_batches, atol=1e-3)
    saved = SAGASRModel.from_pretrained(student.save_pretrained(tmp_path / "student"))
    torch.testing.assert_close(upsample(saved, audio, 44100, options), in_batches)
    for wrong in ({"solver": "ab2"}, {"guidance_acoustic": 1.4}, {"guidance_text": 1.2}):
        with pytest.raises(UserError, match="this is a student"):
            upsample(student, audio, 44100, replace(options, **wrong))


def test_target_rolloff_and_text_still_reach_a_student(tmp_path: Path) -> None:
    student, _ = _student(text_and_rolloff(tiny_demo()), tmp_path)
    audio = 0.1 * torch.randn(1, 4096, generator=torch_generator("steered"))
    options = UpsampleOptions(input_cutoff_hz=4000.0)
    low, high = (
        upsample(student, audio, 44100, replace(options, target_rolloff=target))
        for target in (0.3, 0.9)
    )
    assert (low - high).abs().amax() > 1e-3
    width, passband_hz = student.config.text.dim, torch.tensor([4000.0])
    noise = segment_noise(student.config, [("steered",)])
    rain, wind = (
        restore(
            student,
            student.condition(audio[None], torch.randn(1, 3, width, generator=torch_generator(key)),
                              passband_hz=passband_hz),
            noise,
            student.config.sampling,
        )
        for key in ("rain", "wind")
    )  # fmt: skip
    assert (rain - wind).abs().amax() > 1e-3


CASES: list[tuple[dict[str, Any], list[str], str]] = [
    ({}, ["--distill_steps", "4"], "--distill_steps needs --distill_from"),
    ({}, ["--distill_from", "teacher", "--distill_steps", "0"], "--distill_steps is 0, at least 1"),
    ({}, ["--distill_from", "teacher", "--init_from", "teacher"], "and --init_from both start"),
    ({}, ["--distill_from", "teacher", "--guidance_acoustic", "2"], "a student learns the guid"),
    ({}, ["--distill_from", "nowhere/at/all"], "neither a folder nor a hub repository"),
    ({}, ["--distill_from", "student"], "it is a student itself"),
    ({}, ["--distill_from", "teacher", "--compute_rolloff"], "this config has LR latent . roll"),
    ({"model__diffusion__null_lr_value": 7.0}, ["--distill_from", "teacher"], "null_lr_value"),
    ({"model__diffusion__student_steps": [4], "sampling__solver": "euler",
      "sampling__guidance_acoustic": 1.0, "sampling__guidance_text": 1.0}, [],
     "a student is trained with --distill_from"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "extra", "message"), CASES)
def test_what_cannot_be_distilled_is_refused_early(
    changes: dict[str, Any], extra: list[str], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    teacher = parse_model_config(tiny_demo())
    for name, config in (("teacher", teacher), ("student", student_config(teacher, [4]))):
        Path(name).mkdir()
        Path(name, "config.json").write_text(config.model_dump_json(), encoding="utf-8")
        Path(name, "model.safetensors").touch()
    Path("model.json").write_text(json.dumps(changed(tiny_demo(), **changes)), encoding="utf-8")
    argv = ["--train_dir", ".", "--model_config", "model.json", *extra]
    with pytest.raises(UserError, match=message):
        refuse_early(parse_options(argv))


def test_a_config_of_a_student_samples_as_a_student() -> None:
    raw = changed(tiny_demo(), model__diffusion__student_steps=[1, 4])
    with pytest.raises(UserError, match=r"sampling.solver is ab2, .*is a student.*euler"):
        parse_model_config(changed(raw, sampling__guidance_acoustic=1.0))
