"""Ratings of listeners: what is left out, what an interval covers, which files are refused."""

import csv
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saga_sr.compare.__main__ import run
from saga_sr.listen import ratings
from saga_sr.listen.ratings import COLUMNS, FORMAT, Rating
from saga_sr.support.errors import UserError

ROLES = {"truth": "truth", "anchor": "anchor", "F0": "system", "F2": "system"}
TYPICAL = {"truth": 98.0, "anchor": 15.0, "F0": 50.0, "F2": 80.0}


def a_rating(**changes: Any) -> Rating:
    one = Rating(
        "page1", "F0, F2", "mushra", "s1", "Ann", 1, "2026-01-01T10:00:00Z", "speech/a", "speech",
        4000.0, 1, "F0", "system", "", 50.0,
    )  # fmt: skip
    return replace(one, **changes)


def mushra(
    raters: Iterable[str], num_clips: int, levels: dict[str, float] = TYPICAL, noise: float = 3.0
) -> list[Rating]:
    """Everybody rates every system on clips of two categories."""
    rng = np.random.default_rng(0)
    return [
        a_rating(
            session=rater, rater=rater, trial=clip + 1, clip=f"clip {clip}",
            category=("music", "speech")[clip % 2], system=system, role=ROLES[system],
            rating=float(np.clip(level + noise * rng.standard_normal(), 0, 100)),
        )
        for rater in raters
        for clip in range(num_clips)
        for system, level in levels.items()
    ]  # fmt: skip


def write_csv(path: Path, rows: Iterable[Rating], delimiter: str = ",") -> Path:
    """As the page saves it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    for one in rows:
        writer.writerow(vars(one) | {"format": FORMAT, "started_at": "2026-01-01T09:59:00Z"})
    path.write_text("\ufeff" + text.getvalue(), encoding="utf-8", newline="")
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    rows = [a_rating(), a_rating(system="F2", rater='李 "a", b', rating=12.5)]
    assert ratings.read_ratings([write_csv(tmp_path / "a.csv", rows)])[0] == rows
    assert ratings.read_ratings([write_csv(tmp_path / "b.csv", rows, ";")])[0] == rows


def test_a_file_that_was_saved_again_counts_once_and_its_newer_answer_wins(tmp_path: Path) -> None:
    first = a_rating(rating=40.0)
    second = a_rating(rating=60.0, rated_at="2026-01-01T10:05:00Z")
    paths = [write_csv(tmp_path / "2.csv", [second]), write_csv(tmp_path / "1.csv", [first])]
    found, notes = ratings.read_ratings(paths)
    assert [one.rating for one in found] == [60.0]
    assert "1 ratings are in more than one file" in notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rating": "loud"}, "line 3: rating is 'loud', not a number"),
        ({"rating": "101"}, "line 3: rating is 101, not in 0 to 100"),
        ({"rating": "nan"}, "line 3: rating is 'nan', not a number"),
        ({"mode": "abx"}, "line 3: mode is 'abx'; allowed: mushra, preference"),
        ({"role": "judge"}, "line 3: role is 'judge'"),
        ({"rater": " "}, "line 3: rater is empty"),
        ({"format": "saga_sr.listen/9"}, "line 3: format is 'saga_sr.listen/9'"),
        ({"mode": "preference"}, "line 3: against is '' in mode preference"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = write_csv(tmp_path / "a.csv", [a_rating(), a_rating(trial=2)])
    lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    lines[1] |= change
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    with pytest.raises(UserError) as error:
        ratings.read_ratings([path])
    assert f"{path}: {message}" in str(error.value)


def test_files_that_are_no_ratings_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("category,value\nmusic,1\n", encoding="utf-8")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    short = write_csv(tmp_path / "short.csv", [a_rating()])
    short.write_text(short.read_text(encoding="utf-8")[:-8], encoding="utf-8")
    paths = [tmp_path / name for name in ("clips.csv", "x.csv", "none.csv", "short.csv")]
    with pytest.raises(UserError) as error:
        ratings.read_ratings(paths)
    text = str(error.value)
    assert "clips.csv: not saved by listen.html: no column format, page, title, mode ..." in text
    assert "x.csv: not UTF-8 text" in text
    assert "none.csv: No such file" in text
    assert "short.csv: line 2" in text


def test_two_pages_are_not_averaged(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "a.csv", [a_rating()])
    other = write_csv(tmp_path / "b.csv", [a_rating(page="page2", session="s2")])
    with pytest.raises(UserError, match="different pages"):
        ratings.read_ratings([one, other])


def test_post_screening_leaves_out_who_rates_the_hidden_truth_low_too_often() -> None:
    """BS.1534-3: below 90 in more than 15 % of the clips; 1 of 7 may be."""
    good = mushra(["Ann"], 7, noise=0.0)
    good[0] = replace(good[0], rating=89.0)
    bad = mushra(["Bob"], 7, noise=0.0)
    bad[0], bad[4] = replace(bad[0], rating=89.0), replace(bad[4], rating=89.0)
    kept, notes = ratings.screen([*good, *bad])
    assert {one.rater for one in kept} == {"Ann"}
    assert notes == ["Bob is left out: the hidden truth was rated below 90 in 2 of 7 clips."]


def test_post_screening_leaves_out_who_rates_the_anchor_high() -> None:
    deaf = mushra(["Bob"], 4, dict.fromkeys(TYPICAL, 95.0), noise=0.0)
    kept, notes = ratings.screen(deaf)
    assert kept == []
    assert "the anchor was rated above 90 in 4 of 4" in notes[0]
    assert "Nobody passed the post-screening" in ratings.report(deaf)


def test_report_orders_systems_and_tells_them_apart() -> None:
    text = ratings.report(mushra(["Ann", "Bob", "Cleo"], 8))
    rows = [line for line in text.splitlines() if line.startswith(("| truth |", "| F", "| anchor"))]
    assert [row.split("|")[1].strip() for row in rows[:4]] == ["truth", "F2", "F0", "anchor"]
    assert "| mean | all | music | speech |" in text
    assert "not told apart" not in text
    assert "could not tell" not in text


def test_report_says_when_the_truth_is_not_told_from_a_system() -> None:
    text = ratings.report(mushra(["Ann", "Bob"], 8, TYPICAL | {"F2": 98.0}))
    assert "Listeners could not tell truth from F2 (all" in text
    assert "from F0" not in text


def test_interval_of_one_listener_is_students_over_clips() -> None:
    values = [10.0, 20.0, 40.0, 70.0]
    found = ratings.interval(values, ["Ann"] * 4, range(4))
    reach = 3.182446 * np.std(values, ddof=1) / 2
    assert (found.mean, found.low) == pytest.approx((35.0, 35.0 - reach))


def test_interval_covers_the_mean_where_listeners_and_clips_differ() -> None:
    """Crossed random effects: 95 % of intervals are to hold the mean; independent ratings'
    intervals hold it far too seldom."""
    rng = np.random.default_rng(1)
    raters, items = np.divmod(np.arange(6 * 10), 10)
    covered = naive = 0
    for _ in range(400):
        y = 5 * rng.standard_normal(6)[raters] + 5 * rng.standard_normal(10)[items]
        y += 5 * rng.standard_normal(60)
        found = ratings.interval(list(y), [str(r) for r in raters], list(items))
        covered += found.low <= 0 <= found.high
        naive += abs(y.mean()) < 2.0 * y.std(ddof=1) / np.sqrt(len(y))
    assert covered / 400 > 0.91
    assert naive / 400 < 0.8


def test_two_clips_of_one_listener_have_no_interval() -> None:
    assert not ratings.interval([1.0, 2.0], ["Ann"] * 2, [1, 2]).is_known
    assert "[–]" in ratings.report(mushra(["Ann"], 2))


def choices(winner_share: float, count: int) -> list[Rating]:
    rows = []
    for clip in range(count):
        won = 100.0 if clip < winner_share * count else 0.0
        one = a_rating(mode="preference", trial=clip + 1, clip=f"clip {clip}", against="F0")
        rows.append(replace(one, system="F2", rating=won))
        rows.append(replace(one, system="F0", against="F2", rating=100.0 - won))
    return rows


def test_preference_of_few_equal_answers_is_no_certainty() -> None:
    found = ratings.preference(choices(1.0, 3), "F2", "F0")
    assert found is not None
    assert found.mean == 100
    assert found.low < 50
    assert "not told apart" in ratings.report(choices(1.0, 3))
    many = ratings.preference(choices(0.9, 40), "F2", "F0")
    assert many is not None
    assert many.low > 60
    assert "F0 over F2 | 10.0" in ratings.report(choices(0.9, 40))


def test_the_command_prints_and_writes_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_csv(tmp_path / f"{name}.csv", mushra([name], 4)) for name in ("Ann", "Bob")]
    arguments = ["compare", "--ratings", *map(str, paths), "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", arguments)
    assert run() == 0
    text = (tmp_path / "out/ratings.md").read_text(encoding="utf-8")
    assert "2 listeners: Ann, Bob" in text
    assert text in capsys.readouterr().out
