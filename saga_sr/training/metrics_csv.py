"""``metrics.csv`` of a run: a line a number, written at once; a resumed run goes on in it."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from saga_sr.support.files import atomic_path


# --- metrics ------------------------------------------------------------------------------------
class MetricsCSV(Logger):
    """Appends ``step,metric,value`` lines to one CSV file.

    A resumed run drops the lines after the step that it resumes from, and goes on. (Lightning's
    CSVLogger deletes the file of an earlier run in the same folder.)

    Args:
        path: of the file.
        first_step: the first step that is trained now.
        keep_last_validation: False where the validation just before it is done anew.
    """

    def __init__(self, path: Path, first_step: int = 0, keep_last_validation: bool = True) -> None:
        super().__init__()
        self.path = path
        self._rows: list[tuple[int, str, str]] = []
        self._keep_until(first_step, keep_last_validation)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> "MetricsCSV":
        return self

    @rank_zero_only
    def _keep_until(self, step: int, keep_last_validation: bool) -> None:
        rows = [
            row
            for row in read_metrics(self.path)
            if row[0] < step
            and (keep_last_validation or row[0] < step - 1 or row[1].startswith("train/"))
        ]
        with (
            atomic_path(self.path) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file).writerows([("step", "metric", "value"), *rows])

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Flags and config have files of their own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._rows += [
            (step or 0, name, f"{float(value):.7g}")
            for name, value in metrics.items()
            if name != "epoch"
        ]
        if len(self._rows) >= 64:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self._rows)
        self._rows.clear()

    def finalize(self, status: str) -> None:
        self.save()


def was_validated(output_dir: Path, step: int) -> bool:
    """Whether metrics.csv holds the validation that followed optimiser step ``step``."""
    rows = read_metrics(output_dir / "metrics.csv")
    return any(row[0] == step - 1 and not row[1].startswith("train/") for row in rows)


def read_metrics(path: Path) -> list[tuple[int, str, float]]:
    """Rows (step, metric, value) of a ``metrics.csv``; a line cut short by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            try:
                step, metric, value = row
                rows.append((int(step), metric, float(value)))
            except ValueError:
                continue
    return rows
