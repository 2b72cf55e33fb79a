"""A real T5 and a real Qwen2-Audio, tiny, with their tokenizers, made from the libraries' own
configuration classes and saved to disk, so that tests load them through the real path, offline."""

from pathlib import Path

import torch

LATIN = [chr(code) for code in range(33, 127)]
CHINESE = list("你好世界这是一段语音的文字音乐雨声")


def build_tiny_t5(
    folder: Path, dim: int = 16, seed: int = 0, characters: list[str] | None = None
) -> Path:
    """Save a T5 encoder ``dim`` wide that spells its texts in ``characters`` (Latin by default)."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = ["▁", *(characters if characters is not None else LATIN)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = special + [(piece, -2.0) for piece in pieces]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=dim, d_kv=8, d_ff=2 * dim, num_layers=2, num_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5EncoderModel(config)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
