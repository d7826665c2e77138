"""From a MODEL argument to one model file on this machine.

Guards: a fetched or unpacked model lies in a temporary folder that is gone when the build ends,
however it ends; what is nobody's path keeps ``named_by_user`` False all the way to the loader.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edge_contract.errors import MachineFault
from edge_pack.origins import archives, fetching, folders, mlmodel, registry, uris
from edge_pack.origins.fetching import Progress
from edge_pack.origins.origin import Origin

Notice = Callable[[str], None]


def _no_progress(_done: int, _total: int | None) -> None:
    pass


@contextmanager
def resolve(
    model: str | Path, notice: Notice, progress: Progress = _no_progress
) -> Iterator[Origin]:
    """The model file that ``model`` names; what was fetched is removed at the end.

    Args:
        model: a path to a file, an archive or a folder, or a URI (``uris.FORMS``); ``#NAME``
            behind it names one file of an archive or folder.
        progress: told of the bytes while a URI is fetched.

    Raises:
        InputFault: nothing there, not readable, unsafe, or several models.
        MachineFault: a driver is not installed, or the disk refuses.
        PeerFault: the other side refuses or fails.
    """
    with ExitStack() as stack:
        origin, member = _reach(model, stack, notice, progress)
        shown = origin.uri or str(origin.path)
        path = origin.path
        if path.is_file() and archives.is_archive(path):
            unpacked = _folder(stack)
            archives.unpack(path, unpacked)
            path = unpacked
        if path.is_dir():
            origin = _of_folder(replace(origin, path=path), member, shown)
        yield _plainly_named(origin, stack)


def _reach(
    model: str | Path, stack: ExitStack, notice: Notice, progress: Progress
) -> tuple[Origin, str]:
    """The file, archive or folder itself, and the member that is wanted of it."""
    if isinstance(model, Path) or not (scheme := uris.scheme_of(model)):
        path = Path(model)
        if path.exists() or "#" not in str(model):
            return Origin(path, named=path), ""
        place, member = uris.member_of(str(model))
        return Origin(Path(place), named=Path(place)), member
    if scheme == uris.MLFLOW:
        fetched = registry.fetch(model, _folder(stack))
        return (
            Origin(
                fetched.folder,
                uri=uris.recorded(model),
                named_by_user=False,
                run_id=fetched.run_id,
                registered=fetched.registered,
            ),
            "",
        )
    place, member = uris.member_of(model)
    if scheme == "file":
        path = Path(unquote(urlsplit(place).path))
        return Origin(path, named=path), member
    if scheme == "http":
        notice("fetched over http://, which anyone on the way can alter: https:// is safer")
    path = fetching.fetch(place, _folder(stack), progress)
    return Origin(path, uri=uris.recorded(model), named_by_user=False), member


def _of_folder(origin: Origin, member: str, shown: str) -> Origin:
    folder = origin.path
    if member:
        path = folders.member(folder, member, shown)
        if path.is_file():
            return replace(origin, path=path)
        folder = path
    described = folders.papers_in(folder)
    if described is None:
        return replace(origin, path=folders.model_in(folder, shown))
    papers = mlmodel.read(described)
    path = papers.path
    return replace(
        origin,
        path=folders.model_in(path, shown) if path.is_dir() else path,
        flavour=papers.flavour,
        run_id=origin.run_id or papers.run_id,
        columns=papers.columns,
        versions=papers.versions,
    )


def _plainly_named(origin: Origin, stack: ExitStack) -> Origin:
    """The same under a name whose suffix says what it is, for loaders that go by it."""
    path = origin.path
    if not path.is_file() or (suffix := folders.plain_suffix(path)) == path.suffix.lower():
        return origin
    named = _folder(stack) / (path.name + suffix)
    try:
        named.symlink_to(path.resolve())
    except OSError:  # a file system without links
        shutil.copyfile(path, named)
    return replace(origin, path=named)


def _folder(stack: ExitStack) -> Path:
    """A temporary folder that ends with the stack. Raises MachineFault."""
    try:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-pack-"))
    except OSError as error:
        raise MachineFault(
            f"cannot make a temporary folder: {error.strerror}", advice="Check TMPDIR."
        ) from error
    return Path(name)
