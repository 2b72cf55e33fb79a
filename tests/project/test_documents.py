"""README and training guide, in both languages: their commands run, and both say the same."""

import ast
import json
import re
import shlex
import subprocess
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_packaging import ROOT, command_lines, flags_of
from tiny_restorer import RATE, SEGMENT, tiny_model

from saga_sr.config import ModelConfig, parse_model_config
from saga_sr.model import Conditioning
from saga_sr.training import validation
from saga_sr.training.flags import parse_options

GUIDE = "docs/training_guide.md"
TWINS = {"README.md": "README.zh-CN.md", GUIDE: "docs/training_guide.zh-CN.md"}
DOCUMENTS = [name for pair in TWINS.items() for name in pair]
OTHERS_FLAGS = ("pip ", "tensorboard ", "ruff ", "hf ")  # inline code of other programs
CODE_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@cache
def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(name), flags=re.DOTALL | re.MULTILINE)


def prose(name: str) -> str:
    """The document without its code blocks."""
    return re.sub(r"^```.*?^```", "", read(name), flags=re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[str]:
    """Command lines of the bash blocks, continued lines joined, comments cut."""
    lines = "\n".join(blocks(name, "bash")).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


def program_of(command: str) -> Path | None:
    """The program of this repository that a command starts, if it starts one."""
    if module := re.search(r"python -m (saga_sr[\w.]*)", command):
        return ROOT / module[1].replace(".", "/") / "__main__.py"
    if spoken := re.search(r"\bsaga-sr (\w+)", command):
        return ROOT / "saga_sr" / spoken[1] / "__main__.py"
    script = re.search(r"(?:python|torchrun .*?) ([\w/]+\.py)", command)
    return ROOT / script[1] if script else None


def links(name: str) -> list[str]:
    """Targets of links and pictures within the repository, anchors cut."""
    return re.findall(r"\]\((?!\w+://)([^)#]+)", read(name))


# --- what runs and exists ---------------------------------------------------------------------
@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_use_flags_that_exist(name: str) -> None:
    started = [(command, program_of(command)) for command in commands(name)]
    started = [(command, program) for command, program in started if program]
    assert len(started) >= 4
    for command, program in started:
        assert program is not None
        assert program.is_file(), command
        own = command if " -m saga_sr" in command else command.split(program.name)[-1]
        used = set(re.findall(r"--\w+", own))
        assert used <= flags_of(program), f"{command}: no {used - flags_of(program)}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_are_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond flags that exist: values, folders and combinations pass the programs' own checks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    (tmp_path / "f1.json").touch()
    for config in ROOT.glob("saga_model_config*.json"):
        (tmp_path / config.name).touch()
    parsed = 0
    for line in commands(name):
        program = program_of(line)
        if program is None or program.parent.name == "scripts":
            continue
        words = re.split(r"train_saga_sr\.py |-m saga_sr\.\w+ ?|saga-sr \w+ ", line, maxsplit=1)[1]
        folders = re.compile(r"(/path/to|/data|corpus)/.+")
        arguments = [folders.sub(str(tmp_path), word) for word in shlex.split(words)]
        if program.name == "train_saga_sr.py":
            assert parse_options(arguments, doc="summary\n").train_dir == [tmp_path]
        else:
            module = import_module(f"saga_sr.{program.parent.name}.__main__")
            module.build_parser().parse_args(arguments)
        parsed += 1
    assert parsed >= 4


@pytest.mark.parametrize("name", DOCUMENTS)
def test_text_names_flags_that_exist(name: str) -> None:
    known = set().union(*(flags_of(path) for path in command_lines())) | {"--no", "--help"}
    spans = [span for span in CODE_SPAN.findall(prose(name)) if not span.startswith(OTHERS_FLAGS)]
    named = {flag for span in spans for flag in re.findall(r"--\w+", span)}
    assert len(named) > 5
    assert named - known == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_command_has_no_comment_inside(name: str) -> None:
    """A line that begins with # after a line-ending backslash cuts off the rest of the command."""
    for block in blocks(name, "bash"):
        assert not re.search(r"\\[ \t]+$", block, flags=re.MULTILINE), "a blank after a backslash"
        assert not re.search(r"\\\n\s*(#|\n|$)", block), block
        assert not re.search(r"#.*\\$", block, flags=re.MULTILINE), block


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_are_read_whole_by_a_shell(name: str) -> None:
    run = subprocess.run(
        ["bash", "-n"], input="\n".join(blocks(name, "bash")), capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    texts = [*commands(name), *CODE_SPAN.findall(prose(name))]
    used = {target for text in texts for target in re.findall(r"^make ([\w-]+)", text)}
    assert {"install", "app", "demo", "test", "lint", "clean"} <= used <= targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_files_and_configs_exist(name: str) -> None:
    folder = (ROOT / name).parent
    assert links(name)
    assert [target for target in links(name) if not (folder / target).exists()] == []
    files = r"\b(?:(?:docs|scripts|saga_sr|benchmarks)/[\w/.-]+\.\w+|saga_model_config\w*\.json)\b"
    named = re.findall(files, read(name), flags=re.ASCII)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_anchors_exist(name: str) -> None:
    asked = re.findall(r"\]\((?!\w+://)([^)#]*)#([^)]+)\)", read(name))
    assert asked
    for target, anchor in asked:
        page = (ROOT / name).parent / target if target else ROOT / name
        assert anchor in anchors(page.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_readme_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("README.md", "python")
    monkeypatch.chdir(tmp_path)
    tiny_model().save_pretrained(Path("runs/demo-f0/export"))
    old = 0.1 * np.random.default_rng(0).standard_normal((4000, 2))
    soundfile.write("old.wav", old, 22_050)
    exec(compile(example, "README.md", "exec"), {})
    restored, sample_rate = soundfile.read("restored.wav")
    assert (restored.shape, sample_rate) == ((8000, 2), 44_100)
    assert np.isfinite(restored).all()


# --- the same twice ---------------------------------------------------------------------------
def without_comments(block: str) -> str:
    """Comments are in the document's language, and so are no part of the command."""
    return "\n".join(re.sub(r"(^|\s)#.*", "", line).rstrip() for line in block.splitlines())


@pytest.mark.parametrize(("english", "chinese"), TWINS.items())
def test_both_languages_have_the_same_code(english: str, chinese: str) -> None:
    for language in ("bash", "json", "diff", "python"):
        pair = [blocks(name, language) for name in (english, chinese)]
        assert [without_comments(one) for one in pair[0]] == [without_comments(o) for o in pair[1]]
    assert len(blocks(english)) == len(blocks(chinese))
    spans = [set(CODE_SPAN.findall(prose(name))) for name in (english, chinese)]
    assert spans[0] ^ spans[1] == set()


@pytest.mark.parametrize(("english", "chinese"), TWINS.items())
def test_both_languages_have_the_same_sections_tables_and_figures(
    english: str, chinese: str
) -> None:
    def shape(name: str) -> Any:
        lines = prose(name).splitlines()
        headings = [line.split(" ")[0] for line in lines if line.startswith("#")]
        rows = [re.sub(CODE_SPAN, "", line) for line in lines if line.startswith("|")]
        cells = [line.count("|") for line in rows]
        decimals = [re.findall(r"\d+\.\d+", row) for row in rows]
        return headings, cells, decimals

    for one, other in zip(shape(english), shape(chinese), strict=True):
        assert one == other


@pytest.mark.parametrize(("english", "chinese"), TWINS.items())
def test_both_languages_link_to_each_other_and_to_the_same_pages(
    english: str, chinese: str
) -> None:
    assert Path(chinese).name in links(english)
    assert Path(english).name in links(chinese)

    def pages(name: str) -> set[str]:  # a Chinese page links to Chinese ones where there are some
        return {target.replace(".zh-CN.md", ".md") for target in links(name)}

    assert pages(english) == pages(chinese)


# --- the guide and the code -------------------------------------------------------------------
def full_config() -> str:
    return (ROOT / "saga_model_config.json").read_text(encoding="utf-8")


def parsed(text: str) -> ModelConfig:
    return parse_model_config(json.loads(text), origin="the guide")


def test_the_json_of_f0_is_the_shipped_one() -> None:
    (shown,) = blocks(GUIDE, "json")
    assert shown.strip() in full_config()
    assert not parsed(full_config()).stage.text


def test_the_diff_makes_f1_and_the_command_makes_the_diff(tmp_path: Path) -> None:
    (diff,) = blocks(GUIDE, "diff")
    (before,) = re.findall(r"^-(.*)$", diff, flags=re.MULTILINE)
    (after,) = re.findall(r"^\+(.*)$", diff, flags=re.MULTILINE)
    assert full_config().count(before) == 1
    patched = full_config().replace(before, after)
    assert parsed(patched).stage.text
    (command,) = [line for line in commands(GUIDE) if line.startswith("sed ")]
    (tmp_path / "saga_model_config.json").write_text(full_config(), encoding="utf-8")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "f1.json").read_text(encoding="utf-8") == patched


def validated_names() -> set[str]:
    """What validation measures, by asking it."""
    model, edge_hz = tiny_model(), torch.tensor([4000.0])
    audio = 0.1 * torch.randn(1, 1, SEGMENT, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latent = model.encode(audio)
        told = Conditioning(latent, None, torch.tensor([[4000.0, 16_000.0]]), edge_hz)
        names = set(validation.flow_losses(model, latent, told, 5 * edge_hz, [0]))
        measured = validation.audio_metrics(audio, 0.9 * audio, edge_hz, 5 * edge_hz, RATE)
    return names | {name + suffix for name in measured for suffix in ("", "_common", "_input")}


def logged_names() -> set[str]:
    """What a run logs: by the code that logs it, and by what validation measures."""
    source = "\n".join(
        (ROOT / f"saga_sr/training/{name}.py").read_text(encoding="utf-8")
        for name in ("module", "data")
    )
    training = set(re.findall(r'"(train/\w+)"', source))
    groups = set(re.findall(r'\.fixed\["(\w+)"\]', source))
    assert len(training) > 3
    assert "val" in groups
    return training | {f"{group}/{name}" for group in groups for name in validated_names()}


@pytest.mark.parametrize("name", [GUIDE, TWINS[GUIDE]])
def test_metrics_have_the_names_that_are_logged(name: str) -> None:
    spans = [span.replace("/speech/", "/") for span in CODE_SPAN.findall(prose(name))]  # a category
    named = {span for span in spans if re.fullmatch(r"\w+/[\w.]+", span)}
    named -= {span for span in named if (ROOT / span).exists() or span.startswith("runs/")}
    assert len(named) > 20
    assert named - logged_names() - {"google/mt5-base", "checkpoints/best.ckpt"} == set()


@cache
def spoken() -> str:
    """All texts of the code, variable parts as …, a text a line."""
    texts = []
    for path in [ROOT / "train_saga_sr.py", *(ROOT / "saga_sr").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                texts.append("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_quoted_messages_are_those_of_the_code() -> None:
    table = read(GUIDE).split("\n## 8. ")[1].split("\n## ")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    of_others = {"unrecognized arguments: #", "--disable_val_lowfreq_replace: command not found"}
    assert len(quoted) > 8
    assert [text for text in quoted if text not in spoken() and text not in of_others] == []
