"""The commit of the working tree that a file lies in, asked of the ``git`` command.

Guards: a build neither fails nor waits because of a repository: no git, no repository, one of
another user, without a commit or in the middle of a rebase all end in an answer. Variables of the
caller's own git (a hook's ``GIT_DIR``) do not redirect the question, nothing is written to the
repository, and neither its hooks nor its file-system monitor run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 5.0
_DIGEST = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
"""SHA-1 or SHA-256, as the repository has it."""
_QUIET = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")


@dataclass(frozen=True)
class Commit:
    """A commit, and whether files that it tracks were changed since, or nobody could tell."""

    digest: str
    dirty: bool


def commit_of(folder: Path) -> Commit | None:
    """The commit checked out where ``folder`` is; None where there is none, or no git."""
    digest = _ask(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if digest is None or not _DIGEST.fullmatch(digest.strip()):
        return None
    changed = _ask(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/")
    return Commit(digest.strip(), dirty=changed is None or bool(changed.strip()))


def _ask(folder: Path, *question: str) -> str | None:
    """What git answers, None when it does not."""
    git = shutil.which("git")
    if git is None:
        return None
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603  git itself, with arguments of ours
            [git, *_QUIET, "-C", str(folder), *question],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
