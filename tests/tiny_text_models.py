"""A real T5, BERT and Qwen2-Audio, tiny, with their tokenizers, made from the libraries' own
configuration classes and saved to disk, so that tests load them through the real path, offline."""

from pathlib import Path

import torch

LATIN = [chr(code) for code in range(33, 127)]
CHINESE = list("你好世界这是一段语音的文字音乐雨声")


def build_tiny_t5(
    folder: Path,
    dim: int = 16,
    seed: int = 0,
    characters: list[str] | None = None,
    **settings: int,
) -> Path:
    """Save a T5 encoder ``dim`` wide that spells its texts in ``characters`` (Latin by default).

    ``settings`` go to `T5Config`.
    """
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = ["▁", *(characters if characters is not None else LATIN)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = special + [(piece, -2.0) for piece in pieces]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0)
    shape = {"d_model": dim, "d_kv": 8, "d_ff": 2 * dim, "num_layers": 2, "num_heads": 2}
    config = T5Config(**{"vocab_size": len(tokenizer), **shape, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5EncoderModel(config)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def build_tiny_bert(folder: Path, dim: int = 16, seed: int = 0) -> Path:
    """Save a BERT ``dim`` wide that spells its texts in Latin letters and has 32 positions."""
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = sorted({letter.lower() for letter in LATIN})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters)]
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    shape = {"hidden_size": dim, "intermediate_size": 2 * dim, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "max_position_embeddings": 32}
    config = BertConfig(vocab_size=len(pieces), **shape, **heads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def build_tiny_qwen2_audio(folder: Path, dim: int = 16, seed: int = 0) -> Path:
    """Save a Qwen2-Audio with its processor; its words are random, but they depend on the audio."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer = _byte_tokenizer()
    audio = {"d_model": dim, "encoder_ffn_dim": 2 * dim, "num_mel_bins": 16, "encoder_layers": 1}
    language = {"hidden_size": dim, "intermediate_size": 2 * dim, "num_hidden_layers": 1}
    config = Qwen2AudioConfig(
        audio_config={**audio, "encoder_attention_heads": 2, "model_type": "qwen2_audio_encoder"},
        text_config={
            **language,
            "model_type": "qwen2",
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.3,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(config)
    model.save_pretrained(folder)
    Qwen2AudioProcessor(WhisperFeatureExtractor(16), tokenizer).save_pretrained(folder)
    return folder


def _byte_tokenizer() -> "object":
    """Qwen2's tokenizer without merges: every byte is a token, so any text can be spelt."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0, **{letter: i + 1 for i, letter in enumerate(alphabet)}}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    special = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer
