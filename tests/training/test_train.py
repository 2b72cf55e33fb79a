"""The real training script, from flags to export, on tiny models and a real index of files."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import soundfile as sf
import torch
from tiny_models import ROOT, text_and_rolloff, tiny_demo, tiny_vae
from tiny_text_models import build_tiny_t5

from saga_sr.config import InverseLR
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.support.errors import UserError
from saga_sr.training import module as training_module
from saga_sr.training.assemble import resolve_config
from saga_sr.training.checkpoints import find_checkpoint, read_checkpoint
from saga_sr.training.data import open_training_data
from saga_sr.training.flags import parse_options
from saga_sr.training.metrics_csv import read_metrics
from saga_sr.training.optimisation import learning_rate_factor

SCRIPT = ROOT / "train_saga_sr.py"


@pytest.fixture(scope="module")
def train() -> Any:
    """The script as a module."""
    sys.path.insert(0, str(ROOT))
    return importlib.import_module("train_saga_sr")


@pytest.fixture(autouse=True)
def _caches_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SAGA_SR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of coloured noise bursts, some with transcripts."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for number in range(6):
        folder = root / ("train" if number < 4 else "val")
        folder.mkdir(exist_ok=True)
        audio = 0.1 * rng.standard_normal((20_000, 1 + number % 2))
        sf.write(folder / f"声音 {number}.wav", audio, 44100)
        (folder / f"声音 {number}.txt").write_text(f"第 {number} noise", encoding="utf-8")
    return root


def _flags(corpus: Path, folder: Path, config: dict[str, Any], *extra: str) -> list[str]:
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return [
        "--train_dir", str(corpus / "train"), "--val_dir", str(corpus / "val"),
        "--model_config", str(path), "--output_dir", str(folder / "run"), "--batch_size", "2",
        "--max_steps", "2", "--num_workers", "0", "--val_every_n_steps", "2", "--val_num_clips",
        "2", "--val_num_train_clips", "1", "--val_num_steps", "2", "--val_num_pictures", "1",
        "--checkpoint_every_n_steps", "2", "--accelerator", "cpu", "--precision", "32-true", *extra,
    ]  # fmt: skip


def _run(train: Any, flags: list[str]) -> None:
    train.main(parse_options(flags))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(sorted(folder.glob("run/checkpoints/step=*.ckpt"))[-1])["state_dict"]


def test_f2_on_the_demo_family_trains_validates_and_exports(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    raw = tiny_demo(sampling__target_rolloff=0.1)
    _run(train, _flags(corpus, tmp_path, raw, "--compute_rolloff"))
    run = tmp_path / "run"
    logged = {name: value for _, name, value in read_metrics(run / "metrics.csv")}
    expected = {
        "train/loss", "train/grad_norm", "train/lr", "val/loss", "val/loss_t0.125", "val/lsd",
        "val/lsd_hf", "val/si_sdr", "val/lsd_input", "val/lsd_common", "train_clips/lsd",
        "val/velocity_error", "val/velocity_error_t0.375",
    }  # fmt: skip
    assert expected <= logged.keys()
    assert all(np.isfinite(value) for value in logged.values())
    model = SAGASRModel.from_pretrained(run / "export")
    assert model.config.stage.rolloff
    assert 0.5 < model.config.sampling.target_rolloff < 1  # measured: white noise reaches Nyquist
    for name in ("config.json", "options.json", "environment.json"):
        assert json.loads((run / name).read_text(encoding="utf-8"))
    samples = sorted(p.name for p in (run / "samples" / "step=00000002").iterdir())
    assert samples[:4] == ["train_clips-00-HR.wav", "train_clips-00-LR.wav",
                           "train_clips-00-prediction.wav", "train_clips-00.json"]  # fmt: skip
    assert sf.info(run / "samples" / "step=00000002" / "val-00-prediction.wav").frames == 4096


@pytest.mark.parametrize("stage", ["F0", "F1", "F2"])
def test_stages_on_the_autoencoder_family(
    stage: str, train: Any, corpus: Path, tmp_path: Path
) -> None:
    config = tiny_vae()
    if stage != "F0":
        config = text_and_rolloff(config)
        config["model"]["diffusion"]["compute_rolloff"] = stage == "F2"
        t5 = build_tiny_t5(tmp_path / "t5", dim=24)
        config["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = str(t5)
    extra = ["--allow_random_pretransform", "--disable_caption"]
    _run(train, _flags(corpus, tmp_path, config, *extra))
    model = SAGASRModel.from_pretrained(tmp_path / "run" / "export")
    assert model.config.stage.text is (stage != "F0")
    state = _weights(tmp_path)
    assert not any(".pretransform." in name for name in state)  # the frozen VAE is not repeated


def test_resumed_run_equals_the_undisturbed_one_weight_for_weight(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    """10 steps, a stop, 10 more: with worker processes, accumulation, cooldown and validation."""
    config = tiny_demo()
    extra = ["--accumulate_grad_batches", "2", "--compute_rolloff", "--checkpoint", "last"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    _run(train, _flags(corpus, whole, config, *extra, "--max_steps", "8"))
    stopped = _flags(corpus, parts, config, *extra, "--max_steps", "8")
    options = parse_options(stopped)
    original = L.Trainer.fit

    def stop_at_4(trainer: Any, *args: Any, **kwargs: Any) -> None:
        trainer.fit_loop.epoch_loop.max_steps = 4
        original(trainer, *args, **kwargs)

    L.Trainer.fit = stop_at_4
    try:
        train.main(options)
    finally:
        L.Trainer.fit = original
    assert (
        sorted(p.name for p in (parts / "run/checkpoints").glob("step*"))[-1]
        == "step=00000004.ckpt"
    )
    _run(train, [*stopped, "--num_workers", "2"])
    for name, value in _weights(whole).items():
        assert torch.equal(value, _weights(parts)[name]), name
    steps = [s for s, name, _ in read_metrics(parts / "run/metrics.csv") if name == "train/loss"]
    assert steps == list(range(8))  # nothing lost, nothing twice


def test_changed_resume_is_refused_with_every_difference(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    _run(train, _flags(corpus, tmp_path, tiny_demo()))
    other = tiny_demo(training__weight_decay=0.5)
    flags = _flags(corpus, tmp_path, other, "--checkpoint", "last", "--batch_size", "4")
    with pytest.raises(UserError) as error:
        _run(train, [*flags, "--seed", "7"])
    for part in ("2 -> 4", "seed: 0 -> 7", "training.weight_decay: 0.001 -> 0.5"):
        assert part in str(error.value)
    allowed = _flags(corpus, tmp_path, tiny_demo(), "--checkpoint", "last", "--max_steps", "3")
    _run(train, [*allowed, "--val_num_clips", "1", "--logger", "csv"])


def test_batch_and_accumulation_may_change_where_the_product_stays(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    config, same = tiny_demo(), []
    for number, (batch, accumulate) in enumerate([("4", "1"), ("2", "2")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        extra = ["--batch_size", batch, "--accumulate_grad_batches", accumulate]
        _run(train, _flags(corpus, folder, config, *extra))
        same.append(_weights(folder))
    for name, value in same[0].items():
        torch.testing.assert_close(value, same[1][name], atol=1e-6, rtol=1e-4)


def test_truncated_newest_checkpoint_is_named_and_the_one_before_is_used(
    train: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--max_steps", "4", "--checkpoint_every_n_steps", "2"]
    _run(train, _flags(corpus, tmp_path, tiny_demo(), *extra))
    newest = tmp_path / "run/checkpoints/step=00000004.ckpt"
    newest.write_bytes(newest.read_bytes()[:-5000])
    found = find_checkpoint("last", tmp_path / "run")
    assert found == tmp_path / "run/checkpoints/step=00000002.ckpt"
    assert "step=00000004.ckpt is truncated or corrupt" in capsys.readouterr().out
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_checkpoint(newest)


def test_export_only_writes_the_export_of_a_checkpoint(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    flags = _flags(corpus, tmp_path, tiny_demo())
    _run(train, flags)
    export = tmp_path / "run/export/model.safetensors"
    written = export.read_bytes()
    export.unlink()
    _run(train, [*flags, "--checkpoint", "last", "--export_only"])
    assert export.read_bytes() == written
    with pytest.raises(UserError, match="no checkpoint"):
        _run(train, [*flags, "--output_dir", str(tmp_path / "new"), "--checkpoint", "last",
                     "--export_only"])  # fmt: skip


def test_fast_dev_run_goes_through_everything_once(
    train: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = _flags(corpus, tmp_path, tiny_demo())
    _run(train, [*flags, "--fast_dev_run"])
    assert not (tmp_path / "run").exists()  # a trial leaves no trace
    assert "a trial: all of it went well" in capsys.readouterr().out


def test_overfit_clips_repeats_the_same_audio(train: Any, corpus: Path, tmp_path: Path) -> None:
    flags = _flags(corpus, tmp_path, tiny_demo(), "--overfit_clips", "2")
    options = parse_options(flags)
    dataset = open_training_data(options, resolve_config(options)).draws
    assert torch.equal(dataset[0][0], dataset[2][0])
    assert torch.equal(dataset[1][1]["lr_audio"], dataset[3][1]["lr_audio"])
    assert not torch.equal(dataset[0][0], dataset[1][0])


def test_overfit_clips_are_what_validation_shows(
    train: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = _flags(corpus, tmp_path, tiny_vae(), "--overfit_clips", "2", "--disable_caption")
    del flags[2:4]  # --val_dir
    _run(train, [*flags, "--allow_random_pretransform"])
    logged = {name for _, name, _ in read_metrics(tmp_path / "run" / "metrics.csv")}
    assert {"overfit_clips/loss", "overfit_clips/lsd", "overfit_clips/si_sdr"} <= logged
    assert not any(name.startswith(("val/", "train_clips/")) for name in logged)
    assert "overfit_clips/lsd" in capsys.readouterr().out
    options = parse_options(flags)
    truth = open_training_data(options, resolve_config(options)).draws[0][0]
    wav = tmp_path / "run" / "samples" / "step=00000002" / "overfit_clips-00-HR.wav"
    assert np.array_equal(sf.read(wav, dtype="float32")[0].T, truth.numpy())


def test_validation_by_category_stands_beside_the_mean(
    train: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = _flags(corpus, tmp_path, tiny_demo(), "--val_num_train_clips", "0")
    flags.insert(4, str(corpus / "train"))  # a second --val_dir
    _run(train, flags)
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    logged = {name: value for _, name, value in rows}
    parts = [logged["val/train/lsd"], logged["val/val/lsd"]]  # one clip of each
    assert parts[0] != parts[1]
    assert logged["val/lsd"] == pytest.approx(sum(parts) / 2)
    assert "val/train/lsd" in capsys.readouterr().out


def test_names_of_the_users_plan_are_where_it_writes_them(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    raw = text_and_rolloff(tiny_vae())
    extra = ("--disable_val_lowfreq_replace", "--allow_random_pretransform")
    options = parse_options(_flags(corpus, tmp_path, raw, *extra))
    trainer = train.SAGASRTrainer(resolve_config(options), options)
    assert trainer.hparams.disable_val_lowfreq_replace
    _, vector = trainer.rolloff_conditioner(torch.tensor([[0.1, 0.8]]))
    token = trainer._build_rolloff_prepend(vector, torch.zeros(1, 64))
    assert token.shape == (1, 1, 64)
    audio = 0.1 * torch.randn(1, 2, 4096)
    replaced = trainer._low_frequency_replace(audio, audio, torch.tensor([4000.0]))
    torch.testing.assert_close(replaced, audio)


@pytest.mark.parametrize(
    "accelerator",
    [
        "cpu",
        pytest.param(
            "gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
        ),
    ],
)
def test_lowpass_on_device_has_the_losses_of_the_workers_and_may_change_on_resume(
    train: Any, corpus: Path, tmp_path: Path, accelerator: str
) -> None:
    extra = ["--compute_rolloff", "--max_steps", "6", "--num_workers", "1", "--precision",
             "32-true", "--accelerator", accelerator]  # fmt: skip
    losses, flags = {}, {}
    for place in ("workers", "device"):
        folder = tmp_path / place
        folder.mkdir()
        raw = tiny_demo(training__learning_rate=1e-3)
        flags[place] = _flags(corpus, folder, raw, *extra)
        switch = ["--lowpass_on_device"] if place == "device" else []
        _run(train, [*flags[place], *switch])
        rows = read_metrics(folder / "run/metrics.csv")
        losses[place] = [value for _, name, value in rows if name == "train/loss"]
    assert len(losses["device"]) == 6
    assert losses["device"] == pytest.approx(losses["workers"], rel=1e-3)
    later = ["--checkpoint", "last", "--max_steps", "7", "--lowpass_on_device"]
    _run(train, [*flags["workers"], *later])


def test_lowpass_on_device_runs_outside_autocast(
    train: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], training_module.degrade

    def watched(hr: torch.Tensor, *args: Any) -> Any:
        seen.append((len(hr), hr.dtype, torch.is_autocast_enabled(hr.device.type)))
        return real(hr, *args)

    monkeypatch.setattr(training_module, "degrade", watched)
    extra = ["--fast_dev_run", "--precision", "bf16-mixed", "--lowpass_on_device"]
    _run(train, _flags(corpus, tmp_path, tiny_demo(), *extra))
    assert seen == [(2, torch.float32, False)]  # the training batch; validation stays in workers


def test_training_noise_is_a_function_of_seed_and_draw(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    options = parse_options(_flags(corpus, tmp_path, tiny_demo()))
    module = train.SAGASRTrainer(resolve_config(options), options)
    like = torch.zeros(3, 64, 64)
    together, alone = (
        module.draw((like, [{"draw": draw} for draw in draws]), like[: len(draws)])
        for draws in ([5, 6, 7], [6])
    )
    for first, second in zip(together, alone, strict=True):
        assert torch.equal(first[1:2], second)


def test_condition_dropout_has_the_probabilities_of_the_config(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    raw = tiny_demo(training__dropout={"both_prob": 0.1, "lr_prob": 0.2, "text_prob": 0.3})
    options = parse_options(_flags(corpus, tmp_path, raw))
    module = train.SAGASRTrainer(resolve_config(options), options)
    like = torch.zeros(4000, 1, 1)
    _, _, lr, text = module.draw((like, [{"draw": draw} for draw in range(4000)]), like)
    for event, probability in ((lr & text, 0.1), (lr & ~text, 0.2), (~lr & text, 0.3)):
        assert float(event.float().mean()) == pytest.approx(probability, abs=0.025)


def test_the_default_target_is_the_median_or_the_models_own_guess(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    raw = tiny_demo(model__diffusion__compute_rolloff=True)
    options = parse_options([*_flags(corpus, tmp_path, raw), "--compute_rolloff"])
    config = resolve_config(options)
    data = open_training_data(options, config)
    assert data.default_target_rolloff(config) > 0
    guesses = config.replacing("training.dropout.rolloff_prob", 0.3)
    assert data.default_target_rolloff(guesses) == 0


def test_some_target_rolloffs_are_not_told_and_what_is_told_stays(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    raw = tiny_demo(training__dropout={"rolloff_prob": 0.3}, model__diffusion__compute_rolloff=True)
    options = parse_options([*_flags(corpus, tmp_path, raw), "--compute_rolloff"])
    module = train.SAGASRTrainer(resolve_config(options), options)
    rolloff_hz = torch.tensor([[2000.0, 9000.0]]).expand(2000, 2)
    like = torch.zeros(2000, 1, 1)
    cond = Conditioning(like, rolloff_hz=rolloff_hz)
    batch = (like, [{"draw": draw} for draw in range(2000)])
    found = module.drop_target_rolloff(batch, cond).rolloff_hz
    assert torch.equal(found[:, 0], rolloff_hz[:, 0])
    assert set(found[:, 1].tolist()) == {0.0, 9000.0}
    assert float((found[:, 1] == 0).float().mean()) == pytest.approx(0.3, abs=0.04)
    alone = module.drop_target_rolloff((like[:1], batch[1][7:8]), cond[[7]]).rolloff_hz
    assert torch.equal(alone, found[7:8])


def test_gradients_are_clipped_to_the_norm_of_the_config(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    options = parse_options(_flags(corpus, tmp_path, tiny_demo()))
    module = train.SAGASRTrainer(resolve_config(options), options)
    trained = [parameter for _, parameter in module.model.trainable()]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    module.configure_gradient_clipping(None, 1.0, "norm")
    norms = torch.stack([parameter.grad.norm() for parameter in trained])
    assert float(norms.norm()) == pytest.approx(1, abs=1e-4)


def test_learning_rate_is_inverse_lr_with_warmup_and_cooldown(train: Any) -> None:
    factor = learning_rate_factor
    plain = InverseLR()
    assert factor(plain, 1e-5, 100, 0) == pytest.approx(0.01)
    late = factor(plain, 1e-5, 26_000, 26_000)
    assert late == pytest.approx((1 + 26_000 / 1e6) ** -0.5)
    cooled = InverseLR(cooldown_fraction=0.5, warmup=0.0)
    assert factor(cooled, 1e-5, 100, 50) == pytest.approx(1, abs=1e-3)
    assert factor(cooled, 1e-5, 100, 75) == pytest.approx(0.5, abs=1e-3)
    assert factor(cooled, 1e-5, 100, 100) == 0


def test_non_finite_loss_stops_with_step_and_clips(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    flags = _flags(corpus, tmp_path, tiny_demo(training__learning_rate=1e30), "--max_steps", "9")
    with pytest.raises(UserError, match="at step") as error:
        _run(train, flags)
    assert "Gradient norms before" in str(error.value)


# --- mistakes -------------------------------------------------------------------------------------


def _call(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, cwd=ROOT
    )


def test_validation_that_can_score_no_clip_says_so(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "silent").mkdir()
    sf.write(tmp_path / "silent" / "a.wav", np.zeros(20_000), 44100)
    changed = ("--val_dir", str(tmp_path / "silent"), "--val_num_train_clips", "0")
    with pytest.raises(UserError, match="val: no clip has a finite LSD"):
        _run(train, _flags(corpus, tmp_path, tiny_demo(), *changed))


def test_help_and_wrong_flags_need_no_torch() -> None:
    code = (
        f"import sys, runpy\nsys.argv = ['train_saga_sr.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_every_wrong_flag_is_named_at_once_with_exit_code_2(tmp_path: Path) -> None:
    done = _call("--train_dir", str(tmp_path / "absent"), "--model_config", "absent.json",
                 "--batch_size", "0", "--learning_rate", "-1")  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in ("--train_dir", "no such folder", "--model_config absent.json", "--batch_size is 0",
                 "--learning_rate is -1"):  # fmt: skip
        assert part in done.stderr


def test_contradictory_flags_are_an_error() -> None:
    done = _call("--train_dir", ".", "--model_config", "x", "--use_caption", "--disable_caption")
    assert done.returncode == 2
    assert "not allowed with" in done.stderr


def test_lowpass_on_device_with_resampling_is_refused(
    train: Any, corpus: Path, tmp_path: Path
) -> None:
    flags = _flags(corpus, tmp_path, tiny_demo(), "--lowpass_on_device", "--lowpass_resample")
    with pytest.raises(UserError, match="lowpass_on_device does not go with --lowpass_resample"):
        parse_options(flags)


def test_random_autoencoder_is_refused(train: Any, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--pretransform_ckpt"):
        _run(train, _flags(corpus, tmp_path, tiny_vae()))


def test_guidance_without_its_branch_is_refused(train: Any, corpus: Path, tmp_path: Path) -> None:
    raw = tiny_demo(training__dropout={"both_prob": 0, "lr_prob": 0, "text_prob": 0})
    with pytest.raises(UserError, match="guidance_acoustic"):
        _run(train, _flags(corpus, tmp_path, raw, "--guidance_acoustic", "1.4"))


def test_folder_without_audio_is_refused(train: Any, corpus: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    flags = _flags(corpus, tmp_path, tiny_demo(), "--train_dir", str(empty))
    with pytest.raises(UserError, match="no audio"):
        _run(train, flags)


def test_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of train_saga_sr"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "absent.ckpt")


def test_sigterm_saves_a_checkpoint_and_says_so(corpus: Path, tmp_path: Path) -> None:
    extra = "--max_steps 100000 --num_workers 1 --val_num_clips 0 --val_num_train_clips 0"
    flags = _flags(corpus, tmp_path, tiny_demo(), *extra.split())
    flags += ["--checkpoint_every_n_steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *flags],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"SAGA_SR_CACHE": str(tmp_path)},
        start_new_session=True,
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 400  # the import of torch alone takes minutes on a busy machine
    while time.monotonic() < deadline and process.poll() is None and not read_metrics(metrics):
        time.sleep(0.2)
    assert read_metrics(metrics), "it did not come to its first steps"
    os.killpg(process.pid, signal.SIGTERM)  # as SLURM does: trainer and workers alike
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    assert find_checkpoint("last", tmp_path / "run") is not None
    assert "--checkpoint last" in output
