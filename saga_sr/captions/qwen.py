"""Qwen2-Audio, which writes the captions (paper, section 3: of the HR audio in training)."""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from saga_sr.captions import DEFAULT_MODEL
from saga_sr.support.device import pick_device
from saga_sr.support.errors import UserError
from saga_sr.support.hub import load_frozen
from saga_sr.text import tidy_text

CAPTION_RATE = 16000  # Hz, mono: what Qwen2-Audio takes
LOWPASS_RATE = 44100  # Hz: the low-pass is the one of the super-resolution model
MIN_CLIP_S = 0.5  # shorter clips are filled up; below 0.1 s the model crashes: no audio token
REQUEST = "Generate the caption in English:"
CAPTION_PROMPT = f"<|audio_bos|><|AUDIO|><|audio_eos|>{REQUEST}"
QWEN_ADVICE = (
    "Captions need a Qwen2-Audio model (17 GB in half precision). Where there is a network, "
    f"`hf download {DEFAULT_MODEL} --local-dir qwen2-audio` fetches it; bring that folder here and "
    "give it as --model. Training needs no captions: transcripts or no text do, and F0 "
    "(cross_attention_cond_ids: []) uses neither."
)


# --- the model ------------------------------------------------------------------------------------
class Captioner:
    """Qwen2-Audio: mono 16 kHz clips in, captions out. Loaded with the first clip.

    Decoding is greedy, so that a clip has one caption whatever else is in its batch or run.

    Args:
        model: hub id or local folder.
        device: where it runs; by default a GPU if there is one.
        dtype: of `DTYPES`; auto is bf16 or fp16 on a GPU and fp32 elsewhere.
        style: of `STYLES`.
        max_new_tokens: longest caption, in tokens; the authors' is 256.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        device: str | None = None,
        dtype: str = "auto",
        style: str = "auto",
        max_new_tokens: int = 256,
    ) -> None:
        self.model = model
        self.device = pick_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype
        self.is_chat = style == "chat" or (style == "auto" and "instruct" in model.lower())
        self.max_new_tokens = max_new_tokens

    @property
    def name(self) -> str:
        """The model as captions.jsonl names it: without folders of this machine."""
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model

    def caption(self, clips: Sequence[np.ndarray]) -> list[str]:
        """A caption, on one line, for each clip: float32 [T] in [-1, 1], 16 kHz, up to 30 s.

        Raises:
            UserError: the model cannot be had, or the batch does not fit into the GPU's memory.
        """
        processor, network = self._loaded
        inputs = processor(
            text=[self._prompt] * len(clips),
            audio=[_fill_up(clip) for clip in clips],
            sampling_rate=CAPTION_RATE,
            return_tensors="pt",
            padding=True,
        ).to(self.device)
        inputs["input_features"] = inputs["input_features"].to(network.dtype)
        try:
            tokens = network.generate(**inputs, max_new_tokens=self.max_new_tokens, **GREEDY)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"{len(clips)} clips at once do not fit into the memory of {self.device}: "
                "use a smaller --batch_size, or --dtype 4bit"
            ) from error
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return [tidy_text(text) for text in processor.batch_decode(answers, **WORDS_ONLY)]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        processor, network = load_frozen(
            self.model,
            "AutoProcessor",
            "Qwen2AudioForConditionalGeneration",
            ("qwen2_audio",),
            QWEN_ADVICE,
            **_precision(self.dtype, self.device),
        )
        processor.tokenizer.padding_side = "left"  # a decoder goes on from the right end
        return processor, network if self.dtype == "4bit" else network.to(self.device)

    @cached_property
    def _prompt(self) -> str:
        if not self.is_chat:
            return CAPTION_PROMPT
        content = [{"type": "audio"}, {"type": "text", "text": REQUEST}]
        processor, _ = self._loaded
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )


# The published generation settings draw words at random; None takes their parameters away.
GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
WORDS_ONLY = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}


def _fill_up(clip: np.ndarray) -> np.ndarray:
    missing = round(MIN_CLIP_S * CAPTION_RATE) - len(clip)
    return np.pad(clip, (0, max(missing, 0)))


def _precision(dtype: str, device: torch.device) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for a ``--dtype``."""
    if dtype == "4bit":
        return _four_bit(device)
    if dtype == "auto":
        half = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp16"
        dtype = "fp32" if device.type == "cpu" else half
    return {"dtype": {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]}


def _four_bit(device: torch.device) -> dict[str, Any]:
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing or device.type != "cuda":
        raise UserError(
            "--dtype 4bit needs an NVIDIA GPU and the packages bitsandbytes and accelerate "
            f"(here: {device.type}; missing: {', '.join(missing) or 'none'}); "
            "pip install bitsandbytes accelerate"
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16
    )
    return {"quantization_config": config, "device_map": {"": device}}


def to_caption_audio(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """[C, T] of any rate to the mono 16 kHz [T] that Qwen2-Audio takes."""
    mono = audio.mean(axis=0, dtype=np.float32)
    return mono if sample_rate == CAPTION_RATE else soxr.resample(mono, sample_rate, CAPTION_RATE)
