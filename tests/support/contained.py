"""The command of the images without an image: process 1, a read-only root, an unknown user without capabilities."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import psutil

from support.faults.process import SERVE, ServerProcess
from support.faults.server import ENVIRONMENT

ROOT = Path(__file__).parents[2]
USER = 54321
END_SECONDS = 60

# The folders of an image that are writable, /tmp and /cache, are `$1/tmp` and `$1/cache`.
CONTAINED = f"""
set -e
folder=$1; shift
awk '{{print $5}}' /proc/self/mountinfo | grep -v '^/proc' | sort -r | while read -r point; do
    mount -o remount,bind,ro "$point" 2>/dev/null || true
done
for name in tmp cache; do mount -t tmpfs -o mode=1777 tmpfs "$folder/$name"; done
! touch "$folder/file" 2>/dev/null || {{ echo "the root file system is writable"; exit 9; }}
exec unshare --user --map-user={USER} --map-group={USER} "$@"
"""
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh")


def can_contain() -> bool:
    """Return whether this machine allows the namespaces."""
    command = [*NAMESPACES[:-1], "unshare", "--user", f"--map-user={USER}", "true"]
    return shutil.which("unshare") is not None and not subprocess.run(command, check=False).returncode


def variables_of_image(dockerfile: str, folder: Path) -> dict[str, str]:
    """Return the variables that an image sets, with its writable folders in `folder`."""
    last = (ROOT / "deploy" / "docker" / dockerfile).read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", last, re.MULTILINE))
    (line,) = re.findall(r"^ENV (.+)$", last, re.MULTILINE)
    pairs = (part.partition("=")[::2] for part in shlex.split(line))
    filled = {name: re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], value) for name, value in pairs}
    del filled["PATH"]
    return {name: re.sub(r"^(?=/(tmp|cache)\b)", str(folder), value) for name, value in filled.items()}


class ContainedServer(ServerProcess):
    """A server as an image runs it.

    Args:
        folder: An empty folder for what is writable, and for the log.
        dockerfile: The name of the file in `deploy/docker` whose variables are set.
        environment: Changes to them; None removes a variable.
        wait_for: The text in the log at which the context is entered.
        settings: Options of `tympan serve`.
    """

    wait_seconds = 120.0

    def __init__(
        self,
        folder: Path,
        dockerfile: str = "Dockerfile",
        environment: dict[str, str | None] | None = None,
        wait_for: str = "serves model",
        **settings: object,
    ) -> None:
        for name in ("tmp", "cache"):
            (folder / name).mkdir()
        # Not the package's stand-in for a recognizer, which ServerProcess sets.
        changed = {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"], "TMPDIR": f"{folder}/tmp"}
        changed |= {**variables_of_image(dockerfile, folder), **(environment or {})}
        prefix = (*NAMESPACES, "-c", CONTAINED, "sh", str(folder))
        super().__init__(folder / "log", SERVE, prefix, changed, wait_for=wait_for, **settings)

    @property
    def process_1(self) -> psutil.Process:
        """The server, which the namespace's creator has started."""
        return psutil.Process(self.process.pid).children()[0]

    def stop(self) -> int:
        """Stop the server as `docker stop` does, and return the exit code of the container."""
        self.process_1.send_signal(signal.SIGTERM)
        return self.process.wait(END_SECONDS)

    def status(self) -> dict[str, str]:
        """Return the lines of the server's `/proc/…/status`."""
        lines = Path(f"/proc/{self.process_1.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def left_behind(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run after a while."""
    return list(psutil.wait_procs(processes, END_SECONDS)[1])
