"""Make a virtual environment that works, and install packages: `python .ci/environment.py .venv -- --editable .`.

The Python that runs this is checked first, so it must also be readable by older ones. An environment that is incomplete
or broken is repaired or made again; one that works is left alone. What follows `--` are arguments of `pip install`.
Exit codes: 0 it is ready, 1 it is not; the last line on standard error says why.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec

NEEDED = (3, 11)
DOWNLOAD = re.compile(r"Downloading (?:\S*/)?(\S+?)-(\d[^-]*)-\S+\.whl \((.+)\)")
INSTALL = re.compile(r"Installing collected packages: (.+)")


def main(arguments):
    """Make the environment and install; return the exit code."""
    folder, _, packages = arguments[0], arguments[1:2], arguments[2:]
    problem = check_python() or make(folder)
    if not problem and packages:
        problem = install(folder, packages)
    if problem:
        sys.stdout.flush()
        print(problem, file=sys.stderr)
    return 1 if problem else 0


def check_python():
    """Return why this Python cannot be used; empty if it can."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if tuple(sys.version_info[:2]) < NEEDED:
        return (
            f"Tympan needs Python 3.11 or later, and this is {version} ({sys.executable}): install a later one, and "
            "name it, for example: make serve PYTHON=python3.12"
        )
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        return f"Python {version} cannot make virtual environments here: install venv (Debian: apt install {package})"
    return ""


def make(folder):
    """Make the environment unless it works; return what went wrong."""
    if works(folder):
        return ""
    if os.path.isdir(folder) and os.listdir(folder):
        if not os.path.exists(os.path.join(folder, "pyvenv.cfg")):
            return f"{folder} is not empty and not a virtual environment: move it away, and run this again"
        say(f"{folder} is incomplete or broken: making it again")
        shutil.rmtree(folder)
    else:
        say(f"making the virtual environment {folder} with Python {sys.version.split()[0]}")
    done = subprocess.run([sys.executable, "-m", "venv", folder], check=False)
    return "" if done.returncode == 0 and works(folder) else f"{folder} could not be made: see the lines above"


def works(folder):
    """Return whether Python and pip run in an environment, and belong to it."""
    python, pip = (os.path.join(folder, "bin", name) for name in ("python", "pip"))
    check = f"import sys, pip; sys.exit(sys.version_info < {NEEDED})"
    try:
        with open(pip, encoding="utf-8") as script:
            own = os.path.abspath(folder) in script.read(1000)
        return own and subprocess.run([python, "-c", check], check=False, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def install(folder, packages):
    """Install packages, and say what is downloaded; return what went wrong."""
    start = time.monotonic()
    say(f"installing into {folder}: {packages[-1]} and what it needs; the first time takes a minute or two")
    pip = [os.path.join(folder, "bin", "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    with subprocess.Popen([*pip, *packages], stdout=subprocess.PIPE, universal_newlines=True) as process:
        for line in process.stdout:
            download, packages_found = DOWNLOAD.search(line), INSTALL.search(line)
            if download:
                say("  downloading {} {} ({})".format(*download.groups()))
            elif packages_found:
                say(f"  installing the packages ({packages_found[1].count(',') + 1})")
            elif "ERROR" in line:
                say(line.rstrip())
    if process.returncode:
        return "pip has failed: see the lines above; what has been installed so far is kept, so run this again"
    say(f"installed in {time.monotonic() - start:.0f} s")
    return ""


def say(text):
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
