"""Measure how much disk each extra needs: `.venv-deploy/bin/python benchmarks/extra_sizes.py`.

Each extra is installed into an environment of its own, in the versions of constraints.txt; the package index of pip's
and uv's own configuration is used. A row of the table is for one extra: packages and size, without the base install.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = (sys.executable, "-m", "uv", "--quiet")
NOT_FOR_USERS = ("clients", "dev")


def measure(extras: str, folder: Path) -> tuple[int, int]:
    """Install the base install with extras such as `[server]`, and return the number of packages and of bytes."""
    python = folder / "bin" / "python"
    subprocess.run([*UV, "venv", folder], check=True)
    options: list[str | Path] = ["--python", python, "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*UV, "pip", "install", *options, f"{ROOT}{extras}"], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file() and not path.is_symlink()]
    return len(list(packages.glob("*.dist-info"))), sum(path.stat().st_size for path in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = [name for name in extras if name not in NOT_FOR_USERS]
    parser.add_argument("extra", nargs="*", default=names, help="extras to measure (default: all for users)")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    print("| extra | packages | MB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        base = measure("", Path(folder) / "base")
        print(f"| none | {base[0]} | {base[1] / 1e6:.0f} |", flush=True)
        for name in parser.parse_args().extra:
            packages, size = measure(f"[{name}]", Path(folder) / name)
            print(f"| `{name}` | {packages - base[0]} more | {(size - base[1]) / 1e6:.0f} more |", flush=True)


if __name__ == "__main__":
    main()
