"""SAGA-SR: semantically and acoustically guided audio super-resolution (arXiv 2509.24924).

The files beside this one are the paper's nouns; docs/method.md gives the order to read them in.
"""

import signal
import sys
from os.path import basename
from typing import Any

# Python is starting one of the commands. It takes seconds until that listens (`errors.run_cli`);
# until then Ctrl-C is simply the end.
if sys.argv and basename(sys.argv[0]) in ("-m", "saga-sr", "train_saga_sr.py"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

__version__ = "0.1.0"

# Name -> module. Imported on first use: `import saga_sr` and every `--help` stay free of torch.
_EXPORTS = {
    "SAGASRDataset": "saga_sr.dataset",
    "RolloffFourierConditioner": "saga_sr.rolloff",
    "low_frequency_replace": "saga_sr.lowfreq",
    "SAGASRModel": "saga_sr.model",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_EXPORTS[name]), name)
