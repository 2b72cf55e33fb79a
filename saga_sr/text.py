"""The semantic condition (paper: captions through T5): what text a clip gets, and its embeddings.

Text reaches the model as embeddings [B, N, D], so the encoder (T5, or any other that transformers
loads) lives outside the model, its optimiser and its checkpoints. `TextEncoder` keeps every
embedding it computes on disk under a name made of the encoder, the text and the number of tokens.
Live, cached and pre-encoded text are therefore one path, several runs and ranks share the work, and
a run whose texts are all known never loads the encoder.

An embedding is kept, and returned, rounded to half precision (a relative step of 2^-11, finer than
T5 itself in half precision): what is read back is bit for bit what was computed.

Rows beyond a text's tokens are zeros and unmasked, as Stable Audio Open was trained. No text is all
zeros, which is the null condition of guidance (eq. 4); no encoder makes zeros of an empty string.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from saga_sr.support.errors import UserError
from saga_sr.support.files import cache_dir as default_cache
from saga_sr.support.files import cache_path, sha256_of
from saga_sr.support.hub import PACKAGE_PREFIX, load_config, load_frozen, located
from saga_sr.support.tensor_cache import TensorCache

Item = TypeVar("Item")
T5_FAMILIES = ("t5", "mt5", "umt5")
PROBE_TEXT = "A violin and rain."
TEXT_BATCH = 32  # texts per call of the encoder
MULTILINGUAL_ADVICE = (
    "google/mt5-base has the width of T5-base and reads about 100 languages, Chinese among them"
)
T5_ADVICE = (
    "A text encoder is a T5 with its tokenizer: config.json, tokenizer.json or spiece.model, and "
    "model.safetensors. Where there is a network, `hf download google-t5/t5-base --local-dir "
    "t5-base` fetches it; bring that folder here and name it as t5_model_name in the model config. "
    "Without text none is needed: F0 has cross_attention_cond_ids: []."
)
ENCODER_ADVICE = (
    "A text encoder of the type transformers is a folder with config.json, tokenizer.json and "
    "model.safetensors, an id of the hub, or package:NAME/FOLDER, a folder in an installed Python "
    "package; name it as model_name in the model config. Without text none is needed: F0 has "
    "cross_attention_cond_ids: []."
)
Kind = Literal["t5", "transformers"]
# Type in the model config -> classes of models, what of transformers reads them, what to do.
_KINDS: dict[Kind, tuple[tuple[str, ...] | None, str, str]] = {
    "t5": (T5_FAMILIES, "AutoModelForTextEncoding", T5_ADVICE),
    "transformers": (None, "AutoModel", ENCODER_ADVICE),
}
logger = logging.getLogger(__name__)


# --- the rule -------------------------------------------------------------------------------------
def tidy_text(text: str | None) -> str:
    """``text`` on one line with single spaces; "" for None. T5's tokenizer reads it the same."""
    return " ".join((text or "").split())


def text_for_clip(caption: str | None, transcript: str | None, use_caption: bool) -> str:
    """The text a clip is conditioned on; "" means none, which is the null condition.

    The caption and then the transcript where both exist, one of them where one does. Without
    ``use_caption`` (``--disable_caption``) the transcript alone.
    """
    return " ".join(part for part in text_parts(caption, transcript, use_caption) if part)


def text_parts(caption: str | None, transcript: str | None, use_caption: bool) -> tuple[str, str]:
    return tidy_text(caption) if use_caption else "", tidy_text(transcript)


def read_transcript(audio_path: Path) -> str | None:
    """The .txt file of the same name beside ``audio_path``, or None where there is none.

    Raises:
        UserError: the file is not UTF-8 (with or without a byte order mark).
    """
    path = audio_path.with_suffix(".txt")
    try:
        if path.is_dir():
            return None
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: the transcript is not UTF-8 (byte {error.start}); save it as UTF-8, "
            f"for example: iconv -f GB18030 -t UTF-8 {path.name}"
        ) from error


# --- the encoder ----------------------------------------------------------------------------------
class TextEncoder:
    """Text embeddings [B, N, D]: a frozen encoder's last hidden state, from the disk where known.

    Args:
        model: hub id, local folder or ``package:`` reference (`saga_sr.support.hub`). Remote code
            is never run.
        max_length: N, the number of tokens; what a text has beyond it is cut off, with a warning.
        kind: its type in the model config: a T5 (also mT5 and UMT5), or any other encoder.
        cache_dir: where embeddings are kept (`TensorCache`); None:
            `saga_sr.support.files.cache_dir`.
        device: where the encoder runs and the result lies. Half precision except on a CPU.
    """

    def __init__(
        self,
        model: str,
        max_length: int = 128,
        kind: Kind = "t5",
        cache_dir: Path | str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = str(model)
        self.max_length = max_length
        self.kind = kind
        self.device = torch.device(device)
        self._cache_root = Path(cache_dir) if cache_dir is not None else default_cache("text")
        self._loaded: tuple[Any, Any] | None = None
        self.num_notes: Counter[str] = Counter()  # of new texts: "cut" and "unread"

    @property
    def is_loaded(self) -> bool:
        """Whether the encoder is in memory."""
        return self._loaded is not None

    @cached_property
    def dim(self) -> int:
        """D, the width of the embeddings. Known from the cache without the encoder."""
        about = self._cache.folder / "model.json"
        if not about.is_file():
            dim = _encoder_config(self.model, self.kind).hidden_size
            with cache_path(about) as temporary:
                temporary.write_text(json.dumps({"model": self.model, "dim": dim}), "utf-8")
        return int(json.loads(about.read_text(encoding="utf-8"))["dim"])

    @property
    def probe(self) -> list[float] | None:
        """[projection on a fixed wave, norm] of the embedding of one text: what this encoder is,
        however it is named. None where the cache has been filled without it, long ago."""
        embedding = self._cache.read(PROBE_TEXT)
        if embedding is None:
            return None
        flat = embedding.double().flatten()
        wave = torch.cos(torch.arange(len(flat), dtype=torch.float64) + 0.5)
        return [float(flat @ wave), float(flat.norm())]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, N, D], float32 on ``device``, of ``texts``.

        Rows beyond a text's tokens are zeros; "" is all zeros, and the encoder is not asked.

        Raises:
            UserError: a text is new and the encoder cannot be loaded; the cache cannot be written.
        """
        texts = [tidy_text(text) for text in texts]
        known = {text: self._cache.read(text) for text in dict.fromkeys(texts) if text}
        missing = [text for text, embedding in known.items() if embedding is None]
        known.update(self._compute_and_store(missing))
        rows = torch.zeros(len(texts), self.max_length, self.dim)
        for row, text in zip(rows, texts, strict=True):
            embedding = known.get(text)
            if embedding is not None:
                row[: len(embedding)] = embedding
        return rows.to(self.device)

    def fill_cache(
        self, texts: Iterable[str], show_progress: bool = True, share: tuple[int, int] = (0, 1)
    ) -> int:
        """Compute what the cache lacks of ``texts``, then let go of the encoder; returns how many.

        Args:
            texts: equal ones count once.
            show_progress: a bar, by the first process.
            share: (rank, processes); the processes compute equal shares of one list.
        """
        from tqdm import tqdm

        rank, processes = share
        distinct = {tidy_text(text) for text in texts} - {""}
        # Texts of like length waste little padding.
        mine = sorted(distinct, key=lambda text: (len(text), text))[rank::processes]
        missing = [text for text in mine if self._cache.read(text) is None]
        is_quiet = not (missing and show_progress and rank == 0)
        with tqdm(total=len(missing), desc="text", unit=" texts", disable=is_quiet) as bar:
            for batch in in_batches(missing, TEXT_BATCH):
                self._compute_and_store(batch)
                bar.update(len(batch))
        if self.is_loaded:
            self._compute_and_store([PROBE_TEXT])
        if self.num_notes:
            logger.warning(
                "%d new texts: %d longer than %d tokens and cut, %d in a language %s cannot read",
                len(missing),
                self.num_notes["cut"],
                self.max_length,
                self.num_notes["unread"],
                self.model,
            )
        self.release()
        return len(missing)

    def release(self) -> None:
        """Free the encoder's memory; it is loaded again if a new text comes."""
        self._loaded = None

    def _compute_and_store(self, texts: list[str]) -> dict[str, Tensor]:
        embeddings = [
            row for batch in in_batches(texts, TEXT_BATCH) for row in self._compute(batch)
        ]
        for text, embedding in zip(texts, embeddings, strict=True):
            self._cache.write(text, embedding)
        return dict(zip(texts, embeddings, strict=True))

    def _compute(self, texts: list[str]) -> list[Tensor]:
        """The encoder on one batch: an unpadded float16 [tokens, D] on the CPU per text."""
        if self._loaded is None:
            self._loaded = _load_encoder(self.model, self.kind, self.max_length, self.device)
        tokenizer, network = self._loaded
        tokens = self._tokenize(tokenizer, texts).to(self.device)
        # Whatever precision the training step runs in, a text has one embedding.
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            hidden = network(**tokens).last_hidden_state.half().cpu()
        counts = tokens["attention_mask"].sum(dim=1).tolist()
        rows = [row[:count].clone() for row, count in zip(hidden, counts, strict=True)]
        for text, row in zip(texts, rows, strict=True):
            if not torch.isfinite(row).all():
                raise UserError(f"{self.model}: it gives NaN or infinity for {text[:80]!r}")
        return rows

    def _tokenize(self, tokenizer: Any, texts: list[str]) -> Any:
        """Token ids and mask, padded to the longest. Counts what the encoder will not see."""
        for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
            if len(ids) > self.max_length:
                self._note("cut", f"text of {len(ids)} tokens, cut to {self.max_length}", text)
            if _known_fraction(tokenizer, text, ids) < 0.5:
                reading = "the tokenizer does not know most characters, this text cannot be read"
                self._note("unread", f"{reading} ({MULTILINGUAL_ADVICE})", text)
        return tokenizer(
            texts, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        )

    def _note(self, kind: str, message: str, text: str) -> None:
        """Count a text that the encoder sees in part only; say so for the first of its kind."""
        self.num_notes[kind] += 1
        if self.num_notes[kind] == 1:
            logger.warning("%s: %s: %.60r (said once)", self.model, message, text)

    @cached_property
    def _cache(self) -> TensorCache:
        """What is known for this model and number of tokens."""
        identity = _model_identity(located(self.model))
        is_path = identity and not self.model.startswith(PACKAGE_PREFIX)
        name = re.sub(r"[^A-Za-z0-9.]+", "-", Path(self.model).name if is_path else self.model)
        digest = hashlib.sha256(f"{identity or self.model}".encode()).hexdigest()
        return TensorCache(self._cache_root / f"{name}-{digest[:16]}-{self.max_length}")


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """``items`` in lists of ``size``, the last one shorter: itertools.batched, for Python 3.11."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _model_identity(model: str) -> str | None:
    """Hash of what decides a folder's embeddings, so that a moved or copied folder keeps them and a
    changed one does not. None for a hub id, which is its own identity: asking the hub which
    revision it names would need the network that a warm cache spares."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    others = sorted(
        {*folder.glob("*token*"), *folder.glob("spiece.model"), *folder.glob("config.json")}
    )
    return " ".join(f"{path.name}:{sha256_of(path)}" for path in [*others, *weights])


def _encoder_config(model: str, kind: Kind) -> Any:
    """The `transformers` configuration of ``model``, which must be an encoder of texts.

    Raises:
        UserError: it cannot be had, or is of another kind.
    """
    families, _, advice = _KINDS[kind]
    config = load_config(located(model), families, advice)
    if kind == "transformers" and config.model_type in T5_FAMILIES:
        raise UserError(f"{model}: a T5 has the type t5 in the model config, not transformers")
    if kind == "transformers" and getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{model}: a {config.model_type} model is no mere encoder. {advice}")
    if not hasattr(config, "hidden_size"):
        raise UserError(f"{model}: a {config.model_type} model is no text encoder. {advice}")
    return config


def _load_encoder(model: str, kind: Kind, max_length: int, device: torch.device) -> tuple[Any, Any]:
    """(tokenizer, encoder). T5 keeps its `wo` layers in float32, since they overflow in half."""
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    families, network_class, advice = _KINDS[kind]
    positions = getattr(_encoder_config(model, kind), "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise UserError(
            f"model.conditioning.configs: prompt: max_length is {max_length}, but {model} has "
            f"{positions} positions"
        )
    tokenizer, encoder = load_frozen(
        located(model), "AutoTokenizer", network_class, families, advice, dtype=dtype
    )
    return tokenizer, encoder.to(device)


def _known_fraction(tokenizer: Any, text: str, ids: list[int]) -> float:
    """Share of the characters of ``text`` that the tokenizer has tokens for, 0 to 1.

    T5 and BERT make one unknown token of many foreign characters, so tokens cannot be counted.
    """
    known = tokenizer.decode(ids, skip_special_tokens=True)
    return len("".join(known.split())) / len("".join(text.split()))
