"""The ruler for a transformer: 1 for one that knows nothing, the same whenever it is measured."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import built, tiny_demo, tiny_vae

from saga_sr.model import Conditioning
from saga_sr.support.errors import UserError

ROOT = Path(__file__).parents[2]
RATE = 44100
CONFIGS = {"patches": tiny_demo, "vae": tiny_vae}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "velocity_error", ROOT / "benchmarks/quality/velocity_error.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two categories: noise of two lengths, mono and stereo, and one silent file."""
    root = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for category in ("music", "speech"):
        (root / category).mkdir()
        for seconds, channels in ((0.05, 1), (0.5, 2)):
            noise = 0.1 * rng.standard_normal((round(seconds * RATE), channels))
            soundfile.write(root / category / f"{channels}.wav", noise, RATE, subtype="FLOAT")
    soundfile.write(root / "music/silent.wav", np.zeros(RATE // 4), RATE)
    return [root / "music", root / "speech"]


def saved(folder: Path, raw: dict[str, Any], knows: bool) -> Path:
    """A tiny model of random weights; or one whose network answers zero."""
    model = built(raw)
    if not knows:
        torch.nn.init.zeros_(model.dit.transformer.project_out.weight)
    return model.save_pretrained(folder)


def table(
    script: ModuleType, capsys: pytest.CaptureFixture[str], folder: Path, *flags: str | Path
) -> dict[str, Any]:
    arguments = ["--model", folder, "--segments", "2", "--device", "cpu", *flags]
    assert script.main(script.parse_args([str(one) for one in arguments])) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("family", CONFIGS)
def test_a_network_that_answers_zero_has_the_error_of_one(
    family: str,
    script: ModuleType,
    folders: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blind = saved(tmp_path, CONFIGS[family](), knows=False)
    found = table(script, capsys, blind, "--audio_dir", *folders, "--cutoffs", "4000", "9000")
    assert list(found) == ["4000", "9000"]
    for by_category in found.values():
        assert list(by_category) == ["music", "speech"]
        for shares in by_category.values():
            assert list(shares) == ["0.125", "0.375", "0.625", "0.875"]
            assert list(shares.values()) == pytest.approx([1.0] * 4, abs=1e-5)


def test_figures_depend_neither_on_the_batch_nor_on_the_time_of_day(
    script: ModuleType, folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path, tiny_demo(), knows=True)
    common = ("--audio_dir", *folders, "--cutoffs", "4000")
    found = table(script, capsys, model, *common)["4000"]
    assert found == table(script, capsys, model, *common)["4000"]
    alone = table(script, capsys, model, *common, "--batch_size", "1")["4000"]
    for category, shares in found.items():
        assert alone[category] == pytest.approx(shares, rel=1e-4)
        assert all(abs(share - 1) > 1e-3 for share in shares.values())


def test_flags_that_cannot_be_used_are_listed_before_the_model_is_loaded(
    script: ModuleType, folders: list[Path], tmp_path: Path
) -> None:
    arguments = ["--model", "none", "--audio_dir", folders[0], folders[0], tmp_path / "no"]
    flags = script.parse_args([str(one) for one in (*arguments, "--segments", "0")])
    with pytest.raises(UserError) as error:
        script.main(flags)
    for words in ("no: no such folder", "two folders are called music", "--segments is 0"):
        assert words in str(error.value)


def test_what_is_missing_lies_between_the_cutoff_and_the_end_of_the_spectrum() -> None:
    model = built(tiny_demo())
    shape = (1, model.config.latent_dim, model.config.latent_length)
    latent = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    passband_hz = torch.tensor([6000.0])
    frame = model.frame(Conditioning(latent, passband_hz=passband_hz))
    missing = model.family.missing(frame, torch.tensor([15000.0])).expand_as(latent)
    bin_hz = (torch.arange(latent.shape[1]) + 0.5) * RATE / 2 / latent.shape[1]
    assert not missing[:, bin_hz > 15000].any()
    assert missing[:, (bin_hz > 6000) & (bin_hz < 15000)].all()
    assert not missing[:, bin_hz < 6000 - 8 * RATE / 2 / latent.shape[1]].any()
