"""Mutated inputs by the thousand: each one works or ends in one clear message.

    python benchmarks/reliability/fuzz.py                          # 4,000 inputs
    python benchmarks/reliability/fuzz.py --kinds audio --inputs 500 --save findings

Real files of every kind that a user or a disk can damage are made small, mutated, and read the way
training reads them: model configs, caption lines, transcripts, audio (WAV, FLAC, OGG, MP3, AIFF,
Opus), header caches, latents, checkpoints and exports. Two kinds are made by an enemy: pickles that
would run code, in everything that could hold one, and paths that lead out of their folder. An input
is a finding unless it works or raises a `UserError` (audio: or is named unusable; hostile: it must
be refused, and nothing may have run; paths: and nothing outside was opened by Python). A reader
process has `MAX_CPU_S` seconds of computing per input, `MAX_WALL_S` of waiting and
`MAX_EXTRA_MEMORY` bytes; one that dies, by whatever signal, is a finding.
"""

# ruff: noqa: E402  (the paths come first)
import argparse
import functools
import json
import mmap
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import soundfile as sf
import torch
from safetensors.torch import save_file
from tiny_models import SHIPPED, shipped, tiny_demo, tiny_vae

from saga_sr import weights
from saga_sr.audio import file as audio_file
from saga_sr.audio.file import read_crop, read_header
from saga_sr.audio.index import FolderTable, scan_folder
from saga_sr.audio.packed_names import PackedNames
from saga_sr.config import ModelConfig, load_model_config, parse_model_config
from saga_sr.data.caption_table import CaptionRecord, CaptionTable
from saga_sr.data.latent_dataset import LatentDataset
from saga_sr.model import SAGASRModel
from saga_sr.pre_encode import __main__ as pre_encode_flags
from saga_sr.pre_encode import encode
from saga_sr.support.errors import UserError
from saga_sr.text import read_transcript
from saga_sr.training import checkpoints

MAX_CPU_S = 5.0
MAX_WALL_S = 120.0
MAX_EXTRA_MEMORY = 2 << 30
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 63, 1000, 2**31, 2**63, -(2**70), 0.0, -0.5, 1.5, 1e-300,
    1e308, float("nan"), float("inf"), "", "x", "prompt", "12", "\ud800", "名", [], [1], [[]], {},
    {"x": 1}, "../../etc/passwd", "a" * 10_000,
)  # fmt: skip


# --- mutations ------------------------------------------------------------------------------------


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut, insert, repeat: one to eight times, half of them in the header."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not out:
            break
        at = rng.randrange(min(len(out), 96) if rng.random() < 0.5 else len(out))
        kind = rng.randrange(7)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            word = struct.pack("<I", rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)))
            out[at : at + 4] = word[: len(out) - at]
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + rng.randrange(1, 64)]
        elif kind == 5:
            out[at:at] = rng.randbytes(rng.randrange(1, 64))
        else:
            out += out[at : at + 256]
    return bytes(out)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """A JSON value with one to three odd values, missing keys, new keys or doubled entries."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        node, key = rng.choice(places)
        kind = rng.randrange(4)
        if kind <= 1:
            node[key] = rng.choice(ODD_VALUES)
        elif kind == 2:
            del node[key]
        elif isinstance(node, dict):
            node[rng.choice(("x", f"{key}_", "config", "type"))] = rng.choice(ODD_VALUES)
        else:
            node.append(node[key])
        if not value:
            break
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def mutate_json(value: Any, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return mutate_bytes(json.dumps(value).encode(), rng)
    return json.dumps(mutate_value(value, rng)).encode("utf-8", errors="surrogatepass")


# --- kinds of input -------------------------------------------------------------------------------


@dataclass
class Kind:
    """How inputs of one kind are made (``make(rng)``: file name and bytes, or a whole folder) and
    read (``read(path)`` returns what became of it, or raises)."""

    make: Callable[[random.Random, Path], Path]
    read: Callable[[Path], str]


def damaged(files: Mapping[str, bytes]) -> Callable[[random.Random, Path], Path]:
    """A `Kind.make` that writes one of ``files`` (name -> bytes) with some damage."""

    def make(rng: random.Random, folder: Path) -> Path:
        name = rng.choice(list(files))
        path = folder / name
        path.write_bytes(mutate_bytes(files[name], rng))
        return path

    return make


def config_kind(root: Path) -> Kind:
    """Shipped and tiny configs; what is accepted and has a VAE is also built, without memory."""
    raws = [*map(shipped, SHIPPED), tiny_demo(), tiny_vae()]

    def make(rng: random.Random, folder: Path) -> Path:
        path = folder / "config.json"
        path.write_bytes(mutate_json(rng.choice(raws), rng))
        return path

    def read(path: Path) -> str:
        config = load_model_config(path)
        parse_model_config(config.model_dump(mode="json"))
        if config.model.pretransform.type == "autoencoder":  # MDCT's constants are numbers
            with torch.device("meta"):
                SAGASRModel(config)
        return "accepted"

    return Kind(make, read)


def captions_kind(root: Path) -> Kind:
    def make(rng: random.Random, folder: Path) -> Path:
        lines = []
        for number in range(3):
            record = CaptionRecord(
                f"a/{number}.wav", "a dog 狗", 1.0 * number, number + 1.5, "m", "h"
            )
            line = record.to_line().encode()
            if number == 1:
                line = mutate_json(json.loads(line), rng) + b"\n"
            lines.append(line)
        path = folder / "captions.jsonl"
        path.write_bytes(b"".join(lines))
        return path

    def read(path: Path) -> str:
        table = CaptionTable.read(path)
        for name in table.paths():
            table.lookup(name, 0.0, 1.0)
        return "accepted"

    return Kind(make, read)


def transcript_kind(root: Path) -> Kind:
    def make(rng: random.Random, folder: Path) -> Path:
        path = folder / "clip.txt"
        path.write_bytes(mutate_bytes("\ufeffShe said: 你好, wie geht's?\r\n".encode(), rng))
        return path

    def read(path: Path) -> str:
        read_transcript(path.with_suffix(".wav"))
        return "accepted"

    return Kind(make, read)


AUDIO_FORMATS = {
    "pcm16.wav": "PCM_16", "float.wav": "FLOAT", "a.flac": "PCM_16", "b.ogg": "VORBIS",
    "c.opus": "OPUS", "d.mp3": "MPEG_LAYER_III", "e.aiff": "PCM_24",
}  # fmt: skip


def audio_kind(root: Path) -> Kind:
    """Every format that the index takes, one to three channels, 22.05 to 48 kHz."""
    rng = np.random.default_rng(0)
    files = {}
    for number, (name, subtype) in enumerate(AUDIO_FORMATS.items()):
        rate, channels = (
            (48000, 2) if subtype == "OPUS" else ((22050, 44100)[number % 2], 1 + number % 2)
        )
        path = root / name
        kwargs = {"format": "OGG"} if subtype == "OPUS" else {}
        sf.write(path, 0.1 * rng.standard_normal((6000, channels)), rate, subtype=subtype, **kwargs)
        files[name] = path.read_bytes()

    def read(path: Path) -> str:
        header = read_header(path)
        if header.problem:
            return "named unusable"
        for start in (-1000, 0, max(0, header.frames - 2000), 10**9):
            crop = read_crop(path, start, 4096, 44100, header)
            assert crop.shape == (header.channels, 4096)
        return "accepted"

    return Kind(damaged(files), read)


def cache_kind(root: Path) -> Kind:
    """The index cache beside an intact folder: whatever it holds, the scan must be right."""
    audio = root / "cached"
    audio.mkdir()
    for number in range(3):
        sf.write(audio / f"{number}.wav", np.zeros((500 + number, 1)), 44100)
    scan_folder(audio, root / "cache.npz", progress=False)
    data = (root / "cache.npz").read_bytes()

    def make(rng: random.Random, folder: Path) -> Path:
        path = folder / "cache.npz"
        path.write_bytes(mutate_bytes(data, rng))
        return path

    def read(path: Path) -> str:
        used = FolderTable.load(path) is not None
        table = scan_folder(audio, path, progress=False)
        assert table.frames.tolist() == [500, 501, 502], table.frames
        return "accepted" if used else "made anew"

    return Kind(make, read)


def make_latents(root: Path) -> tuple[Path, ModelConfig]:
    """A small set of latents, and its config."""
    config_path, audio, intact = root / "latents.json", root / "audio", root / "latents"
    config_path.write_text(json.dumps(tiny_demo()), encoding="utf-8")
    audio.mkdir()
    for number in range(2):
        noise = 0.1 * np.random.default_rng(number).standard_normal(20000)
        sf.write(audio / f"{number}.wav", noise, 44100)
        (audio / f"{number}.txt").write_text("words", encoding="utf-8")
    encode.main(pre_encode_flags.parse_options([
        "--audio_dir", str(audio), "--output_dir", str(intact), "--model_config", str(config_path),
        "--variants", "2", "--shard_segments", "4", "--num_workers", "0", "--accelerator", "cpu",
    ]))  # fmt: skip
    return intact, load_model_config(config_path)


def read_latents(path: Path, config: ModelConfig) -> str:
    dataset = LatentDataset([path], config, seed=0, compute_rolloff=True)
    list(dataset.texts())
    for draw in range(12):
        hr, metadata = dataset[draw]
        assert hr.shape == metadata["lr_latent"].shape
        json.dumps(metadata["prompt"])
    return "accepted"


def latents_kind(root: Path) -> Kind:
    """A set of latents with one file damaged, opened and drawn from."""
    intact, config = make_latents(root)
    names = [path.relative_to(intact) for path in sorted(intact.rglob("*")) if path.is_file()]

    def make(rng: random.Random, folder: Path) -> Path:
        damaged = folder / "latents"
        shutil.copytree(intact, damaged)
        name = rng.choice(names)
        data = (intact / name).read_bytes()
        mutated = (
            mutate_json(json.loads(data), rng)
            if name.suffix == ".json" and rng.random() < 0.7
            else mutate_bytes(data, rng)
        )
        (damaged / name).write_bytes(mutated)
        return damaged

    return Kind(make, lambda path: read_latents(path, config))


def checkpoint_kind(root: Path) -> Kind:
    """Training checkpoints and weight files in both formats."""
    state = {"state_dict": {"a": torch.arange(300.0)}, "saga_sr": {"ema": {}}, "global_step": 3}
    torch.save(state, root / "step.ckpt")
    save_file(state["state_dict"], root / "model.safetensors")
    files = {name: (root / name).read_bytes() for name in ("step.ckpt", "model.safetensors")}

    def read(path: Path) -> str:
        whole = checkpoints.is_whole(path)
        if path.suffix == ".ckpt":
            found = checkpoints.read_checkpoint(path)
            assert not whole or torch.equal(found["state_dict"]["a"], torch.arange(300.0)), (
                "altered"
            )
        else:
            weights.read_tensors(path)
        return "accepted"

    return Kind(damaged(files), read)


class Hostile:
    """A pickle that calls something when it is loaded."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def hostile_value(rng: random.Random, target: Path) -> Any:
    """Something in a state dict that would make the file ``target``."""
    shell, code = f"touch {target}", f"open({str(target)!r}, 'w')"
    payload: Any = rng.choice((
        Hostile(os.system, shell), Hostile(eval, code), Hostile(exec, code),
        Hostile(subprocess.check_call, ["touch", str(target)]), Hostile(Path.touch, target),
        Hostile(getattr, Hostile(__import__, "os"), "system"), Hostile(open, str(target), "w"),
        Hostile(functools.partial(os.system, shell)), Hostile(torch.save, {}, str(target)),
    ))  # fmt: skip
    for _ in range(rng.randrange(3)):
        payload = rng.choice(([payload], {"x": payload}, OrderedDict(x=payload), (1, payload)))
    return payload


def hostile_kind(root: Path) -> Kind:
    """Checkpoints in torch's two formats and as bare pickles of all protocols, arrays of objects in
    latents and in the index cache."""
    intact, config = make_latents(root)
    sf.write(root / "audio" / "scanned.wav", np.zeros((500, 1)), 44100)
    target = root / "it ran"

    def make(rng: random.Random, folder: Path) -> Path:
        value, kind = hostile_value(rng, target), rng.randrange(6)
        state = {"saga_sr": {}, "global_step": 1, "state_dict": {"a": torch.zeros(3)}}
        state[rng.choice((*state, "x"))] = value
        path = folder / rng.choice(("step=00000001.ckpt", "model.pt"))
        if kind <= 1:
            torch.save(state, path, _use_new_zipfile_serialization=kind == 0)
        elif kind <= 3:
            path.write_bytes(pickle.dumps(state, protocol=rng.randrange(6)))
        elif kind == 4:
            path = folder / "latents"
            shutil.copytree(intact, path)
            array = rng.choice(sorted(path.rglob("*.npy")))
            np.save(array, np.array([value] * len(np.load(array)), dtype=object), allow_pickle=True)
        else:
            path = folder / "cache.npz"
            np.savez(path, format=1, names_blob=np.array([value], dtype=object), allow_pickle=True)
        return path

    def read(path: Path) -> str:
        target.unlink(missing_ok=True)
        try:
            _read_hostile(path, config, root / "audio")
        finally:
            assert not target.exists(), "IT RAN"
        return "accepted"

    return Kind(make, read)


def _read_hostile(path: Path, config: ModelConfig, audio: Path) -> None:
    """Read it in every way that a file of its name is read; the first refusal is enough."""
    if path.is_dir():
        read_latents(path, config)
    elif path.suffix == ".npz":
        scan_folder(audio, path, progress=False)
        raise UserError("the cache is not used")
    else:
        refusals = 0
        for reader in (checkpoints.read_checkpoint, weights.read_tensors):
            try:
                reader(path)
            except UserError:
                refusals += 1
        assert refusals == 2, "accepted"
        raise UserError("refused twice")


class OpenedFiles:
    """The paths that Python opens in a ``with`` block; hooks stay for ever, so one is enough."""

    _noted: list[str] | None = None
    _hooked = False

    def __enter__(self) -> list[str]:
        if not OpenedFiles._hooked:
            sys.addaudithook(OpenedFiles._hook)
            OpenedFiles._hooked = True
        OpenedFiles._noted = []
        return OpenedFiles._noted

    def __exit__(self, *error: object) -> None:
        OpenedFiles._noted = None

    @staticmethod
    def _hook(event: str, arguments: tuple[Any, ...]) -> None:
        noted = OpenedFiles._noted
        if noted is not None and event == "open" and isinstance(arguments[0], str | bytes):
            noted.append(os.path.realpath(os.fsdecode(arguments[0])))


def paths_kind(root: Path) -> Kind:
    """Names that lead out of their folder, in captions, in a set of latents and in its manifest."""
    intact, config = make_latents(root)
    secret = root.parent / "secret.wav"
    sf.write(secret, np.full((500, 1), 0.7), 44100)
    allowed = tuple(map(os.path.realpath, (root, sys.prefix, sys.base_prefix, ROOT, "/proc")))

    def make(rng: random.Random, folder: Path) -> Path:
        escapes = (
            f"{'../' * rng.randrange(1, 9)}{secret.name}", str(secret), f"a/../../{secret.name}",
            f"..\\{secret.name}", f"./../{secret.name}", f"C:\\{secret.name}",
            f"//{secret}", f"a/{'../' * 3}etc/passwd", "/etc/passwd", "..",
        )  # fmt: skip
        escape = rng.choice(escapes)
        if rng.random() < 0.4:
            path = folder / "captions.jsonl"
            path.write_text(json.dumps({"path": escape, "caption": "x"}) + "\n", encoding="utf-8")
            return path
        path = folder / "latents"
        shutil.copytree(intact, path)
        if rng.random() < 0.5:
            names = PackedNames.pack([os.fsencode(escape)] * 2)
            for part, array in (("blob", names.blob), ("ends", names.ends)):
                np.save(path / "folder-000" / f"names_{part}.npy", array)
        else:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            manifest["folders"][0]["audio_dir"] = escape
            (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return path

    def read(path: Path) -> str:
        with OpenedFiles() as opened:
            try:
                return _read_paths(path, config)
            finally:
                outside = [name for name in opened if not name.startswith(allowed)]
                assert not outside, f"opened {outside[:3]}"

    return Kind(make, read)


def _read_paths(path: Path, config: ModelConfig) -> str:
    if path.is_dir():
        return read_latents(path, config)
    CaptionTable.read(path)
    raise AssertionError("a path that leads out was taken")


KINDS: dict[str, tuple[Callable[[Path], Kind], float]] = {  # and their share of the inputs
    "config": (config_kind, 0.25),
    "captions": (captions_kind, 0.12),
    "transcript": (transcript_kind, 0.03),
    "audio": (audio_kind, 0.3),
    "cache": (cache_kind, 0.05),
    "latents": (latents_kind, 0.1),
    "checkpoint": (checkpoint_kind, 0.08),
    "hostile": (hostile_kind, 0.05),
    "paths": (paths_kind, 0.02),
}


# --- running --------------------------------------------------------------------------------------


def read_one(kind: Kind, number: int, seed: int, folder: Path) -> str:
    """What became of one input: a kind of success, ``clear message``, or a finding."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = kind.make(random.Random(f"{seed} {number}"), folder)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)  # SIGVTALRM ends the process
    signal.setitimer(signal.ITIMER_REAL, MAX_WALL_S)  # and so does SIGALRM
    try:
        return kind.read(path)
    except UserError as error:
        text = str(error)
        return "clear message" if text and "Traceback" not in text else f"FINDING: {text[:300]}"
    except BaseException as error:
        return f"FINDING: {type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_EXTRA_MEMORY, resource.RLIM_INFINITY))


def run_kind(kind: Kind, inputs: int, seed: int, folder: Path) -> dict[int, str]:
    """Outcomes of all inputs of a kind, read in forks; one that dies is replaced by the next."""
    outcomes: dict[int, str] = {}
    current = mmap.mmap(-1, 8)
    first = 0
    while first < inputs:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            limit_memory()
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                for number in range(first, inputs):
                    current[:] = struct.pack("<q", number)
                    outcome = read_one(kind, number, seed, folder)
                    pipe.write(json.dumps([number, outcome]) + "\n")
                    pipe.flush()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as pipe:
            outcomes |= dict(json.loads(line) for line in pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        first = inputs
        if code != 0:
            (died,) = struct.unpack("<q", current[:])
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            outcomes[died] = f"FINDING: the process died of {reason}"
            first = died + 1
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--inputs", type=int, default=4000, help="over all kinds")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the inputs that are findings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    audio_file.RETRY_DELAY_S = 0.0  # of the pauses between attempts, not of the attempts
    findings, total = 0, sum(KINDS[name][1] for name in options.kinds)
    with tempfile.TemporaryDirectory() as work:
        os.environ["SAGA_SR_CACHE"] = str(Path(work) / "cache")
        for name in options.kinds:
            root = Path(work) / name
            root.mkdir()
            make_kind, share = KINDS[name]
            kind = make_kind(root)
            inputs = round(options.inputs * share / total)
            outcomes = run_kind(kind, inputs, options.seed, root / "input")
            counts = Counter(text.split(":")[0] for text in outcomes.values()).most_common()
            listed = ", ".join(f"{count} {outcome}" for outcome, count in counts)
            print(f"{name:12s} {len(outcomes):5d} inputs: {listed}", flush=True)
            bad = {n: text for n, text in outcomes.items() if text.startswith("FINDING")}
            findings += len(bad)
            for number, text in list(bad.items())[:12]:
                print(f"    input {number}: {text}")
            if options.save:
                for number in bad:
                    made = options.save / f"{name}-{options.seed}-{number}"
                    made.mkdir(parents=True, exist_ok=True)
                    kind.make(random.Random(f"{options.seed} {number}"), made)
    print(f"{findings} findings")
    return bool(findings)


if __name__ == "__main__":
    raise SystemExit(main())
