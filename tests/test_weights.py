"""Weights in and out: exports, Stable Audio Open's format, the VAE alone, hostile files."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import built, changed, text_and_rolloff, tiny_demo, tiny_vae

from saga_sr import weights
from saga_sr.config import parse_model_config
from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.support.errors import UserError
from saga_sr.weights import (
    fold_weight_norm,
    load_pretransform,
    load_stable_audio,
    load_stage,
    read_tensors,
)


@pytest.mark.parametrize("raw", [text_and_rolloff(tiny_vae()), tiny_demo()], ids=["VAE", "MDCT"])
def test_export_loads_as_the_same_model(raw: dict[str, Any], tmp_path: Path) -> None:
    model = built(raw)
    loaded = SAGASRModel.from_pretrained(model.save_pretrained(tmp_path / "模型"))
    assert loaded.config == model.config
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_export_in_half_precision_is_half_the_size_and_loads_in_float32(tmp_path: Path) -> None:
    model = built(tiny_demo())
    full = model.save_pretrained(tmp_path / "full") / "model.safetensors"
    half = model.save_pretrained(tmp_path / "half", torch.float16) / "model.safetensors"
    assert half.stat().st_size < 0.55 * full.stat().st_size
    loaded = SAGASRModel.from_pretrained(tmp_path / "half")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}


def _spoil(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "other config":
        raw = tiny_demo(model__diffusion__config__depth=3)
        (folder / "config.json").write_text(parse_model_config(raw).model_dump_json())
    else:
        tensors = load_file(weights)
        tensors.pop("dit.preprocess_conv.weight")
        save_file(tensors, weights)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", "model.safetensors is missing"),
        ("no config", "config.json is missing"),
        ("truncated", "truncated or corrupt"),
        ("other config", "missing dit.transformer.layers.2"),
        ("missing tensor", "missing dit.preprocess_conv.weight"),
    ],
)
def test_spoilt_export_is_one_clear_error(how: str, message: str, tmp_path: Path) -> None:
    built(tiny_demo()).save_pretrained(tmp_path)
    _spoil(tmp_path, how)
    with pytest.raises(UserError, match=message):
        SAGASRModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "raw", [tiny_demo(), tiny_vae(), text_and_rolloff(tiny_demo())], ids=["demo", "vae", "F2"]
)
def test_least_parameters_are_no_more_than_there_are(raw: dict[str, Any]) -> None:
    model = built(raw)
    held = sum(value.numel() for value in model.state_dict().values())
    assert 0.2 * held < model.config.least_parameters <= held


def test_a_config_that_asks_for_gigabytes_is_refused_before_they_are_taken(tmp_path: Path) -> None:
    folder = built(tiny_demo()).save_pretrained(tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model"]["diffusion"]["config"] |= {
        "embed_dim": 4096, "depth": 256, "num_heads": 64, "prepend_cond_dim": 4096,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: asks for .* \(1\d\d\.\d GB\)"):
        SAGASRModel.from_pretrained(folder)


def test_unreachable_hub_repository_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="by hand"):
        SAGASRModel.from_pretrained("someone/no-such-model")
    with pytest.raises(UserError, match="neither a folder nor a hub repository"):
        SAGASRModel.from_pretrained("./absent/folder/of/mine")


# --- Stable Audio Open ----------------------------------------------------------------------------


def _stable_audio_raw() -> dict[str, Any]:
    return tiny_vae(
        model__diffusion__cross_attention_cond_ids=["prompt", "seconds_start", "seconds_total"]
    )


def _save_stable_audio(model: SAGASRModel, path: Path, suffix: str = ".safetensors") -> Path:
    """``model`` in Stable Audio Open's format: its names, and a DiT without LR channels."""
    channels = model.config.latent_dim
    tensors = {}
    for name, value in model.state_dict().items():
        if name.startswith("rolloff_conditioner.") or ".to_prepend_embed." in name:
            continue
        if name == "dit.preprocess_conv.weight":
            value = value[:channels, :channels]
        if name == "dit.transformer.project_in.weight":
            value = value[:, :channels]
        for ours, theirs in (
            ("dit.", "model.model."),
            ("conditioners.prompt.", "conditioner.conditioners.prompt.proj_out."),
            ("conditioners.", "conditioner.conditioners."),
        ):
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        tensors[name] = value.clone().contiguous()
    path = path.with_suffix(suffix)
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_widened_dit_equals_the_original_for_any_lr_latent(suffix: str, tmp_path: Path) -> None:
    original = built(_stable_audio_raw(), seed=1)
    channels = original.config.latent_dim
    path = _save_stable_audio(original, tmp_path / "model", suffix)
    model = built(_stable_audio_raw(), seed=2)
    report = load_stable_audio(model, path)
    assert set(report.widened) == {
        "dit.preprocess_conv.weight",
        "dit.transformer.project_in.weight",
    }
    assert all("rolloff" in n or "to_prepend_embed" in n for n in report.missing)
    assert not report.unexpected
    assert not report.mismatched
    # The original function: the LR channels of the first model silenced.
    original.dit.preprocess_conv.weight.data[:, channels:] = 0
    original.dit.preprocess_conv.weight.data[channels:] = 0
    original.dit.transformer.project_in.weight.data[:, channels:] = 0
    x_t, text, t = torch.randn(2, 8, 128), torch.randn(2, 12, 24), torch.rand(2)
    expected = original.velocity(x_t, t, Conditioning(torch.zeros_like(x_t), text))
    for lr in (torch.zeros_like(x_t), torch.randn_like(x_t)):
        found = model.velocity(x_t, t, Conditioning(lr, text))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    audio = 0.1 * torch.randn(1, 2, 4096)
    torch.testing.assert_close(model.encode(audio), original.encode(audio))


def test_stable_audio_report_names_what_is_left_over(tmp_path: Path) -> None:
    path = _save_stable_audio(built(_stable_audio_raw()), tmp_path / "model")
    tensors = load_file(path) | {"something.else": torch.zeros(1)}
    save_file(tensors, path)
    report = load_stable_audio(built(_stable_audio_raw()), path)
    assert report.unexpected == ["something.else"]
    assert "unexpected (1): something.else" in str(report)


def test_stable_audio_of_other_dimensions_is_refused(tmp_path: Path) -> None:
    path = _save_stable_audio(built(_stable_audio_raw()), tmp_path / "model")
    narrow = tiny_vae()
    narrow["model"]["diffusion"]["config"] |= {
        "num_heads": 1, "embed_dim": 32, "prepend_cond_dim": 32
    }  # fmt: skip
    with pytest.raises(UserError, match="other dimensions"):
        load_stable_audio(built(narrow), path)
    nothing = tmp_path / "nothing.safetensors"
    save_file({"x": torch.zeros(1)}, nothing)
    with pytest.raises(UserError, match="none of it fits"):
        load_stable_audio(built(_stable_audio_raw()), nothing)


@pytest.mark.parametrize("prefix", ["", "autoencoder.", "pretransform.model."])
@pytest.mark.parametrize("folded", [True, False])
def test_vae_alone_loads_from_every_usual_form(prefix: str, folded: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = SAGASRModel(parse_model_config(tiny_vae()))
    if folded:
        fold_weight_norm(source)
    tensors = {prefix + name: v for name, v in source.pretransform.model.state_dict().items()}
    torch.save(
        {"state_dict": tensors | {"discriminator.weight": torch.zeros(2)}}, tmp_path / "v.ckpt"
    )
    model = SAGASRModel(parse_model_config(tiny_vae()))
    load_pretransform(model, tmp_path / "v.ckpt")
    audio = 0.1 * torch.randn(1, 2, 4096)
    torch.testing.assert_close(model.encode(audio), source.encode(audio), atol=1e-5, rtol=1e-4)


def test_another_vae_is_refused(tmp_path: Path) -> None:
    raw = changed(tiny_vae())
    raw["model"]["pretransform"]["config"]["encoder"]["config"]["channels"] = 8
    other = built(raw)
    save_file(dict(other.pretransform.model.state_dict()), tmp_path / "vae.safetensors")
    with pytest.raises(UserError, match="not the weights of this config"):
        load_pretransform(built(tiny_vae()), tmp_path / "vae.safetensors")
    with pytest.raises(UserError, match="has no weights"):
        load_pretransform(built(tiny_demo()), tmp_path / "vae.safetensors")


# --- stages ---------------------------------------------------------------------------------------


def test_weights_of_f0_start_f2(tmp_path: Path) -> None:
    earlier = built(tiny_vae(), seed=1)
    earlier.save_pretrained(tmp_path)
    model = built(text_and_rolloff(tiny_vae(sample_size=8192)), seed=2)
    load_stage(model, tmp_path)
    for name, value in earlier.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


@pytest.mark.parametrize(("before", "after"), [(24, None), (None, 24), (24, 16)])
def test_a_text_projection_that_nobody_trained_starts_anew(
    before: int | None, after: int | None, tmp_path: Path
) -> None:
    """None: text as wide as cond_dim, which needs no projection."""
    raws = [tiny_demo(), text_and_rolloff(tiny_demo())]
    for raw, dim in zip(raws, (before, after), strict=True):
        raw["model"]["conditioning"]["configs"][0]["config"]["dim"] = (
            dim or raw["model"]["conditioning"]["cond_dim"]
        )
    built(raws[0]).save_pretrained(tmp_path)
    model = built(raws[1], seed=3)
    own = {n: v.clone() for n, v in model.state_dict().items() if "conditioners.prompt" in n}
    assert bool(own) == (after is not None)
    report = load_stage(model, tmp_path)
    assert any("starts anew" in note for note in report.notes)
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in own.items())


def test_stage_of_another_architecture_is_refused_with_the_differences(tmp_path: Path) -> None:
    built(tiny_demo()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"power: [\d.]+ -> 0\.75"):
        load_stage(built(tiny_demo(model__pretransform__config__power=0.75)), tmp_path)


# --- hostile files --------------------------------------------------------------------------------


class _Hostile:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def test_hostile_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "pwned"
    torch.save({"state_dict": _Hostile(target)}, tmp_path / "zip.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps({"state_dict": _Hostile(target)}))
    for name in ("zip.ckpt", "raw.ckpt"):
        with pytest.raises(UserError):
            read_tensors(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 100])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_garbage_is_a_clear_error(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="model"):
        read_tensors(path)


# --- raw training checkpoints and the hub ---------------------------------------------------------


def test_averaged_weights_of_a_raw_training_checkpoint_are_taken_and_said(tmp_path: Path) -> None:
    """stable-audio-tools' training wrapper keeps both; its own export takes the averages."""
    model, averaged = built(tiny_vae(), seed=1), built(tiny_vae(), seed=2)
    network = {n.removeprefix("dit."): v for n, v in model.state_dict().items() if n[:4] == "dit."}
    average = {n: averaged.state_dict()[f"dit.{n}"] for n in network}
    vae = model.pretransform.model.state_dict()
    raw = {f"diffusion.model.model.{name}": value for name, value in network.items()}
    raw |= {f"diffusion.pretransform.model.{name}": value for name, value in vae.items()}
    without = tmp_path / "without.ckpt"
    torch.save({"state_dict": raw}, without)
    raw |= {f"diffusion_ema.ema_model.model.{name}": value for name, value in average.items()}
    raw |= {"diffusion_ema.initted": torch.tensor(True), "diffusion_ema.step": torch.tensor(3)}
    both = tmp_path / "both.ckpt"
    torch.save({"state_dict": raw}, both)
    for path, expected, words in (
        (both, average, "its averaged weights are taken"),
        (without, network, "without averages: weights as trained"),
    ):
        loaded = built(tiny_vae(), seed=3)
        report = load_stable_audio(loaded, path)
        assert words in str(report)
        assert report.unexpected == []
        for name, value in expected.items():
            assert torch.equal(loaded.state_dict()[f"dit.{name}"], value), name
    load_pretransform(built(tiny_vae(), seed=3), both)  # the VAE out of the same file


def test_averaged_autoencoder_of_a_raw_training_checkpoint_is_taken(tmp_path: Path) -> None:
    plain, average = (built(tiny_vae(), seed=k).pretransform.model.state_dict() for k in (1, 2))
    raw = {f"autoencoder.{name}": value for name, value in plain.items()}
    raw |= {f"autoencoder_ema.ema_model.{name}": value for name, value in average.items()}
    raw |= {f"autoencoder_ema.online_model.{name}": value for name, value in plain.items()}
    torch.save({"state_dict": raw}, tmp_path / "vae.ckpt")
    model = built(tiny_vae(), seed=3)
    assert "averaged" in str(load_pretransform(model, tmp_path / "vae.ckpt"))
    for name, value in average.items():
        assert torch.equal(model.pretransform.model.state_dict()[name], value), name


@pytest.mark.parametrize("held", [["model.safetensors", "model.ckpt"], ["model.ckpt"]])
def test_hub_repository_is_asked_for_one_file_only(
    held: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both formats of Stable Audio Open are 10 GB; the second is asked for only without the first.

    The hub is a folder here: what would be downloaded is what its client is asked for.
    """
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        for pattern in set(allow_patterns) & set(held):
            (tmp_path / pattern).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert weights._checkpoint_file("owner/name") == tmp_path / held[0]
    assert asked == ["model.safetensors", "model.ckpt"][: asked.index(held[0]) + 1]
