"""A folder that is watched: a file that comes in is answered by a file beside it.

    FOLDER/cat.jpg  ->  FOLDER/done/cat.jpg and FOLDER/done/cat.jpg.json
                or  ->  FOLDER/failed/cat.jpg and FOLDER/failed/cat.jpg.json with the error

Guards: a file that is still being written is left alone; a file is answered once, also when the
power goes between its answer and its move; what is no regular file is never opened; the folders of
what was handled do not grow without end.

By looking, not by inotify: that hears nothing of a network share, where cameras write.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET, Struct

from edge_agent import tap
from edge_agent.doors import files, plain
from edge_agent.doors.media import PICTURES, SOUNDS, Images, MissingExtra, Sounds
from edge_agent.doors.mqtt import BROKEN
from edge_agent.doors.rows import CsvRows
from edge_agent.live import Live
from edge_agent.model import Model
from edge_agent.outputs import Prediction, listed
from edge_agent.settings import Watch
from edge_contract import messages, wire
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.messages import ROWS_MAX, Answer, Problem
from edge_contract.ports.disk import make_folder, read_bounded, settle, sync_directory, write_atomic

log = logging.getLogger(__name__)

NAME_MAX_BYTES = 200
"""A file system's bound is 255; an answer's name, a temporary one's and a time want some of it."""
SUFFIXES = (".json", ".csv", *PICTURES, *SOUNDS)
"""What is looked at; any other file, and one whose name begins with a dot, is left alone; so is a
name that is too long or no UTF-8: no answer could be named after it."""
DONE, FAILED = "done", "failed"
RESULT_MAX_BYTES = 16 * 1024**2
_AT_ONCE = 1000
_NOT_ITS_OWN = frozenset({errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Why a file is not read now for which it is not to blame: it is gone, or the machine is short."""


class Mark(Struct, frozen=True, kw_only=True):
    """By which a file is known again: another one of the same name has another."""

    name: str
    size_bytes: int
    mtime_ns: int


class Result(Answer, frozen=True, kw_only=True):
    """What lies beside a file that was handled: the answer, or the error, as over MQTT and HTTP."""

    file: Mark


class Seen(NamedTuple):
    """A file as it was when it was looked at last, and since when it is like that."""

    mark: Mark
    since_s: float


class Watcher:
    """Watches one folder.

    Args:
        seats: what answers, by name; looked up anew for each file.
        size_max: bytes of a file. now_s: a clock that never jumps.
        tell: hears each file's new name, and its answer.
    """

    def __init__(
        self,
        settings: Watch,
        seats: Mapping[str, Live],
        *,
        size_max: int,
        now_s: Callable[[], float] = time.monotonic,
        tell: Callable[[str, Result], None] = lambda name, result: None,
    ) -> None:
        self._settings = settings
        self._seats = seats
        self._size_max = size_max
        self._now_s = now_s
        self._tell = tell
        self._folder = Path(settings.folder)
        self._seen: dict[str, Seen] = {}
        self._stuck: set[Mark] = set()
        self._said = ""
        self._readers: tuple[str, Images | None, Sounds | None] = ("", None, None)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch in a thread of its own. Raises MachineFault for a folder that cannot be used."""
        self.prepare()
        self._thread = threading.Thread(target=self.run, name="watch", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish the file that is under way and end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def prepare(self) -> None:
        """Make the folders, remove what a cut left half-written. Raises MachineFault."""
        try:
            for name in ("", DONE, FAILED):
                make_folder(self._folder / name)
        except OSError as error:
            raise MachineFault(f"cannot use folder {self._folder}: {error.strerror}") from error
        for name in (DONE, FAILED):
            settle(self._folder / name, deep=False)

    def run(self) -> None:
        """Look again and again, until ``stop``."""
        while True:
            handled = 0
            try:
                handled = self.look()
            except Exception:
                log.exception("watching %s", self._folder)  # the next look may go better
            if self._stopping.wait(0.0 if handled >= _AT_ONCE else self._settings.poll_s):
                return

    def look(self) -> int:
        """Handle what is complete, the oldest first; how many files that were."""
        now_s = self._now_s()
        found = self._list()
        self._seen = {
            name: was if (was := self._seen.get(name)) and was.mark == mark else Seen(mark, now_s)
            for name, mark in found.items()
        }
        self._stuck.intersection_update(found.values())
        ready = [
            each.mark
            for each in self._seen.values()
            if now_s - each.since_s >= self._settings.settle_s and each.mark not in self._stuck
        ]
        handled = 0
        for mark in sorted(ready, key=lambda each: (each.mtime_ns, each.name))[:_AT_ONCE]:
            if self._stopping.is_set() or not self._handle(mark):
                break
            handled += 1
        if handled:
            self._prune()
        return handled

    def _list(self) -> dict[str, Mark]:
        found = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if not _is_meant(entry.name):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        about = entry.stat(follow_symlinks=False)
                        if not stat.S_ISDIR(about.st_mode):
                            found[entry.name] = Mark(
                                name=entry.name, size_bytes=about.st_size,
                                mtime_ns=about.st_mtime_ns,
                            )  # fmt: skip
        except OSError as error:
            self._say(f"cannot look into {self._folder}: {error.strerror}")
        return found

    # -- one file ------------------------------------------------------------------------------

    def _handle(self, mark: Mark) -> bool:
        """Answer a file and move it away; False where it has to wait for a model or the disk."""
        try:
            for where in (DONE, FAILED):
                name = self._name(where, mark)
                if self._is_answered(where, name, mark):
                    self._move(mark, where, name)
                    return True
            result = self._result(mark)
            where = DONE if result.error is UNSET else FAILED
            name = self._name(where, mark)
            write_atomic(self._folder / where / f"{name}.json", wire.encode_json(result))
            self._move(mark, where, name)
            self._tell(name, result)
        except _Wait as error:
            self._say(error.what)
            return False
        except FileNotFoundError:
            return True  # whoever put it there took it back
        except (OSError, MachineFault) as error:
            self._say(f"{mark.name}: {error}")
            return False
        self._said = ""
        return True

    def _result(self, mark: Mark) -> Result:
        model_name = self._settings.model
        seat = self._seats.get(model_name)
        if seat is None or seat.model is None:
            raise _Wait(f"{mark.name} waits: no model {model_name!r} answers yet")
        version: Any = UNSET
        try:
            data = self._read(mark)
            with seat.use() as model:
                version = model.manifest.version
                found = self._answers(model, mark.name.lower(), data)
            said = plain.answer_of(model_name, version, found)
            return Result(
                file=mark, model=model_name, version=version, predictions=said.predictions
            )
        except MissingExtra as error:
            raise _Wait(f"{mark.name} waits: {error.what} {error.advice}") from error
        except EdgeError as error:
            problem = Problem(what=error.what, advice=error.advice)
        except (OSError, MemoryError):
            raise
        except Exception:  # a bug that one file meets must not stop all that come after it
            log.exception("%s could not be answered", mark.name)
            problem = BROKEN
        return Result(file=mark, model=model_name, version=version, error=problem)

    def _read(self, mark: Mark) -> bytes:
        """The bytes of a regular file, no link. Raises InputFault; OSError for ``_NOT_ITS_OWN``.

        A file that cannot be read would stand in the way of all that come after it.
        """
        path = self._folder / mark.name
        try:
            data = _regular(path, self._size_max + 1)
        except PermissionError as error:
            raise InputFault(f"{mark.name} may not be read by this agent") from error
        except OSError as error:
            if error.errno in _NOT_ITS_OWN:
                raise
            raise InputFault(f"{mark.name} cannot be read: {error.strerror or error}") from error
        if len(data) > self._size_max:
            raise InputFault(f"{mark.name} is over the limit of {self._size_max} bytes")
        if not data:
            raise InputFault(f"{mark.name} is empty")
        return data

    def _answers(self, model: Model, name: str, data: bytes) -> list[Prediction]:
        if name.endswith(".json"):
            return listed(tap.predict(model, plain.rows_of(messages.decode_request(data))))
        if name.endswith(".csv"):
            return _csv(model, data)
        images, sounds = self._decoders(model, name)
        if images is not None and name.endswith(PICTURES):
            return listed(tap.predict(model, images.rows(data)))
        assert sounds is not None
        return [each for rows in sounds.rows(data) for each in listed(tap.predict(model, rows))]

    def _decoders(self, model: Model, name: str) -> tuple[Images | None, Sounds | None]:
        """For this version of the model; made when the first file of a kind comes."""
        digest, images, sounds = self._readers
        if digest != model.digest:
            images = sounds = None
        rules = self._settings
        if name.endswith(PICTURES):
            images = images or Images(model.manifest, rules)
        else:
            sounds = sounds or Sounds(model.manifest, rules)
        self._readers = (model.digest, images, sounds)
        return images, sounds

    # -- where it goes -------------------------------------------------------------------------

    def _name(self, where: str, mark: Mark) -> str:
        """Its own name; with the time at which it was written, where another file has that.

        Its own may be that of another one's answer: ``cat.jpg`` and ``cat.jpg.json``.
        """
        folder = self._folder / where
        taken = (folder / mark.name).exists() or (folder / f"{mark.name}.json").exists()
        if not taken or self._is_answered(where, mark.name, mark):
            return mark.name
        plain_name = Path(mark.name)
        return f"{plain_name.stem}-{mark.mtime_ns}{plain_name.suffix}"

    def _is_answered(self, where: str, name: str, mark: Mark) -> bool:
        """There is an answer to this very file already: only its move is missing."""
        with contextlib.suppress(InputFault):
            data = read_bounded(self._folder / where / f"{name}.json", RESULT_MAX_BYTES)
            return wire.decode_json(data, Result, size_max=RESULT_MAX_BYTES).file == mark
        return False

    def _move(self, mark: Mark, where: str, name: str) -> None:
        try:
            (self._folder / mark.name).rename(self._folder / where / name)
        except PermissionError as error:  # another user's, in a folder with the sticky bit
            log.warning("%s is answered but cannot be moved: %s", mark.name, error.strerror)
            self._stuck.add(mark)
            return
        sync_directory(self._folder / where)
        sync_directory(self._folder)
        self._seen.pop(mark.name, None)

    def _prune(self) -> None:
        """Let the oldest go of what was handled, beyond ``keep`` files."""
        for where in (DONE, FAILED):
            kept = []
            with os.scandir(self._folder / where) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):  # one that is gone, or sick, costs no other
                        if not entry.name.startswith(".") and not entry.is_dir(
                            follow_symlinks=False
                        ):
                            kept.append((entry.stat(follow_symlinks=False).st_ctime_ns, entry.path))
            for _, path in sorted(kept)[: max(len(kept) - 2 * self._settings.keep, 0)]:
                with contextlib.suppress(OSError):
                    Path(path).unlink()

    def _say(self, what: str) -> None:
        """Once, until something else is said or goes well."""
        if what != self._said:
            log.warning("%s", what)
            self._said = what


class _Wait(MachineFault):
    """Not now; the file stays where it is."""


def _is_meant(name: str) -> bool:
    """Whether a file of this name is looked at; see ``SUFFIXES``."""
    if name.startswith(".") or not name.lower().endswith(SUFFIXES):
        return False
    try:
        return len(name.encode()) <= NAME_MAX_BYTES
    except UnicodeEncodeError:
        return False


def _regular(path: Path, size_max: int) -> bytes:
    """Up to so many bytes of a regular file, no link. Raises InputFault for another; OSError."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise InputFault(f"{path.name} is no regular file")
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputFault(f"{path.name} is no regular file")
        return file.read(size_max)


def _csv(model: Model, data: bytes) -> list[Prediction]:
    """All rows of a CSV file; the first that is refused is the file's fault."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    found: list[Prediction] = []
    ask = functools.partial(tap.predict, model)
    for each in files.answers(ask, CsvRows(text, model.manifest).blocks()):
        if isinstance(each.found, EdgeError):
            raise type(each.found)(
                f"line {each.place}: {each.found.what}", advice=each.found.advice
            )
        found.append(each.found)
        if len(found) > ROWS_MAX:
            raise InputFault(
                f"over {ROWS_MAX} rows", advice="edge-agent predict FILE takes any number."
            )
    if not found:
        raise InputFault("the file has no rows")
    return found
