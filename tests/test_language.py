"""The sources, the documentation and the help texts use none of the words and names that the project has retired."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from tympan.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent

# Regular expressions, matched without case. A space matches any white space, so that a wrapped line hides nothing.
RETIRED_WORDS = (
    r"\b(nobody|somebody|whoever|whomsoever|everybody else)\b",
    r"\bwho (runs|is|asks|waits|reads) (next|for|finds)\b",
    r"\bwho (asks|does not)\b",
    r"\b(is|are|was|were) told( of)?\b",
    r"\btells? of\b",
    r"\bin the lurch\b",
    r"\b(hears?|heard) (once more|again|beside|until)\b",
    r"\b(goodbye|farewell)\b",
    r"\bsays? hello\b",
    r"\b(breather|waiting ?room|seam|tenant|hurry)\b",
    r"\bnot any more\b",
    r"\bhas it not\b",
    r"\bcannot be(?=[.,;:!?)\"']|$)",
    r"\bso many of\b",
    r"\bthat for people\b",
    r"\bin vain\b",
    r"\bperhaps with\b",
    r"\bof our own\b",
    r"\bat what the\b",
    r"\bwhat is poor\b",
    r"\b(has|have|had) come to it\b",
    r"pip install ['\"]?tympan",  # the package is in no registry
)

# Identifiers in Python sources, whole and with their case, and names of modules.
RETIRED_NAMES = frozenset({
    *("Breather", "Desk", "Ear", "Farewell", "Guest", "Heard", "Hearer", "Journal", "Lease", "Letter", "Line"),
    *("Listening", "Offer", "Passing", "Pulse", "Rest", "Return", "Seam", "Stages", "WaitingRoom", "_Wish"),
    *("_hurry", "door", "farewell", "goodbye", "hear", "hear_again", "hurry", "lane", "lease"),
    *("looks", "pace", "remembered", "rendezvous", "seam", "settle", "tempo", "tenant", "unflushed", "waiting_room"),
})  # fmt: skip


class Allowed(NamedTuple):
    """A use that is allowed: in the files that match `file`, of what matches `word`, for a reason."""

    file: str
    word: str
    reason: str


ALLOWED = (Allowed("src/tympan/models/kernels/*.py", "lane", "a lane of a GPU's warp, the field's own word"),)


class Finding(NamedTuple):
    """Where a retired word stands."""

    file: str
    line: int
    word: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r}"


def retired_words(file: str, text: str) -> Iterator[Finding]:
    for expression in RETIRED_WORDS:
        pattern = expression.replace(" ", r"[\s#*>]+")
        for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE):
            yield Finding(file, text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()))


def retired_names(file: str, text: str) -> Iterator[Finding]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string in RETIRED_NAMES:
            yield Finding(file, token.start[0], token.string)


def quoted_names(file: str, text: str) -> Iterator[Finding]:
    """Retired names among what a page shows as code: between backticks."""
    for match in re.finditer(r"`([^`\n]+)`", text):
        for name in re.findall(r"\w+", match[1]):
            if name in RETIRED_NAMES:
                yield Finding(file, text.count("\n", 0, match.start()) + 1, name)


def check(findings: Iterable[Finding]) -> None:
    left = [
        str(finding)
        for finding in sorted(findings)
        if not any(fnmatch(finding.file, use.file) and re.fullmatch(use.word, finding.word, re.I) for use in ALLOWED)
    ]
    assert not left, "\n".join(["retired words:", *left])


def files(*patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern)})


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files("src/**/*.py", "src/**/*.js", "src/**/*.html", "src/**/*.css"), ids=relative)
def test_source_has_no_retired_word(path: Path) -> None:
    text = path.read_text()
    findings = [*retired_words(relative(path), text)]
    if path.suffix == ".py":
        findings += retired_names(relative(path), text)
    if path.stem in RETIRED_NAMES:
        findings.append(Finding(relative(path), 0, path.stem))
    check(findings)


@pytest.mark.parametrize(
    "path", files("README.md", "CONTRIBUTING.md", "docs/**/*.md", "docs/**/*.yml", "docs/**/*.json"), ids=relative
)
def test_page_has_no_retired_word(path: Path) -> None:
    text = path.read_text()
    check([*retired_words(relative(path), text), *quoted_names(relative(path), text)])


@pytest.mark.parametrize("command", ["", *COMMANDS, "bench engine", "bench load"])
def test_help_has_no_retired_word(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")  # one line for each option
    text = printed_help(command, "--help", capsys)
    if "--help-all" in text:
        text += printed_help(command, "--help-all", capsys)
    check(retired_words(f"tympan {command} --help", text))


def printed_help(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*command.split(), option]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("use", ALLOWED, ids=str)
def test_allowed_use_exists_and_has_a_reason(use: Allowed) -> None:
    found: list[Finding] = []
    for path in files(use.file):
        text = path.read_text()
        found += [*retired_words(relative(path), text), *quoted_names(relative(path), text)]
        if path.suffix == ".py":
            found += retired_names(relative(path), text)
    assert use.reason
    assert any(re.fullmatch(use.word, finding.word, re.I) for finding in found)


def test_a_finding_names_file_line_and_word() -> None:
    text = "A first line.\nThe client\nis\n# told of it, by nobody.\n"
    found = {str(finding) for finding in retired_words("a.py", text)}
    assert found == {"a.py:3: 'is # told of'", "a.py:4: 'nobody'"}
    assert [*retired_names("a.py", "x = 1\nclass Letter: ...\n")] == [Finding("a.py", 2, "Letter")]
    assert [*quoted_names("a.md", "A Letter.\n\n`Letter.text`\n")] == [Finding("a.md", 3, "Letter")]
