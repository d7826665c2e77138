"""Who may run code: a pickle is loaded from the user's own path, or with ``--trust``.

Guards: a pickle runs code of whoever wrote it as soon as it is read, so what was fetched from
anywhere else is refused before its first byte is interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from edge_contract.errors import InputFault
from edge_pack.origins.origin import Origin


def allow_pickle(origin: Origin, trust: bool, notice: Callable[[str], None]) -> None:
    """Raise InputFault for a pickle that the user neither named nor trusts; else say what it is."""
    name = origin.path.name
    if not origin.named_by_user and not trust:
        raise InputFault(
            f"{origin.uri} holds a pickle ({name}): loading it runs code of whoever wrote it, "
            "and it is not from a path of yours",
            advice="If you know who wrote it, pass --trust; else have the model saved as .skops, "
            "as a booster's own JSON or as .onnx, which run no code.",
        )
    because = " (trusted because of --trust)" if not origin.named_by_user else ""
    notice(f"{name} is a pickle: loading it runs code of whoever wrote it{because}")


def version_notices(versions: Mapping[str, str]) -> list[str]:
    """One notice a library that saved the model in another version than the one here.

    Only a difference in major or minor number counts; for Python itself, too.
    """
    found = []
    for library, saved in sorted(versions.items()):
        here = _here(library) if library in _SAVERS else ""
        if here and _minor(saved) != _minor(here):
            label = _SAVERS[library]
            found.append(
                f"saved by {label} {saved}, loaded by {here}: answers may differ; "
                f"build with {label} {saved} to be sure"
            )
    return found


_SAVERS = {
    "python": "Python", "numpy": "NumPy", "scikit-learn": "scikit-learn", "xgboost": "XGBoost",
    "lightgbm": "LightGBM", "catboost": "CatBoost", "keras": "Keras", "cloudpickle": "cloudpickle",
    "skops": "skops",
}  # fmt: skip
_OTHER_NAMES = {"xgboost": ("xgboost-cpu",)}


def _here(library: str) -> str:
    if library == "python":
        return python_version()
    for name in (library, *_OTHER_NAMES.get(library, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def _minor(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")[:2])
