"""The code blocks of Markdown pages: found, and the commands of shell blocks checked against the programs they name.

Directives of the documentation site, such as ```{toctree}, and the cells of notebooks, ```{code-cell}, are no code
blocks: `make docs` checks the first and executes the second.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hub_server import hub_server

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"),
        *sorted(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts),
        *sorted(ROOT.glob("examples/*/README.md")),
    )
)
DIRECTIVE = re.compile(r"^```\{[\w-]+\}.*?^```$", re.MULTILINE | re.DOTALL)
# Programs of the system, and words of the shell that the pages use.
SYSTEM = {"zcat", "cut", "sort", "uniq", "git", "cd", ".", "mpirun", "jq"}


class Block(NamedTuple):
    """A fenced block: the page, the line of its fence (from 1), its language ("" where it has none) and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def read_page(page: str) -> str:
    """Returns the text of a page; the lines of directives are empty."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return DIRECTIVE.sub(lambda found: "\n" * found[0].count("\n"), text)


def cells(page: str) -> list[str]:
    """Returns the code cells of a notebook."""
    return re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def blocks(page: str, language: str) -> list[Block]:
    """Returns the fenced blocks of a page that are in a language."""
    text = read_page(page)
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, *match.groups()))
    return [block for block in found if block.language == language]


def prose(page: str) -> str:
    """Returns a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", read_page(page), flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of each command of a shell block; those of a pipe are separate, redirections are left out."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"\$\([^)]*\)", "SUBSTITUTED", text)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>;&")
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for word in [*lexer, ";"]:
            if skip:  # the file of a redirection
                skip = False
            elif word in ("<", ">", ">>"):
                skip = True
            elif word in ("|", ";", "&&", "||"):
                while words and re.match(r"[A-Z_]+=", words[0]):  # an assignment before a command
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def check_command(words: list[str]) -> None:
    """Raises an exception where a command, a file, a target or a flag does not exist."""
    name, *arguments = words
    name = name.removeprefix(".venv/bin/")
    match name:
        case "python":
            check_python(arguments)
        case "bert-jax":
            check_bert_jax(arguments)
        case "make":
            check_make(arguments)
        case "pip":
            check_pip(arguments)
        case "hf":
            require((Path(sys.executable).parent / "hf").is_file(), "hf")
        case "bash":
            require((ROOT / arguments[0]).is_file(), arguments[0])
        case _:
            require(name in SYSTEM, name)


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"does not exist: {what}")


def check_python(arguments: list[str]) -> None:
    script, *flags = arguments
    if script == "-m":
        require(flags[0] in ("pytest", "pip", "build"), f"python -m {flags[0]}")
        if flags[0] == "pytest":
            for path in flags[1:]:
                require((ROOT / path).exists(), path)
        return
    require((ROOT / script).is_file(), script)
    if script == "train.py":
        check_pretraining(flags)
    elif script == "finetune.py":
        check_finetuning(flags)
    elif script.endswith("train_on_ray.py"):
        program = min(flags.index(name) for name in ("pretrain", "finetune") if name in flags)
        check_flags(script, flags[:program])
        check_bert_jax(flags[program:])
    else:
        check_flags(script, flags)


def check_flags(script: str, flags: list[str]) -> None:
    for flag in flags:
        if flag.startswith("--"):
            require(flag in flags_of_benchmark(script), f"{script} {flag}")


def check_pretraining(flags: list[str]) -> None:
    """Lets the program's own parser and checks read the flags; a model to continue from is a BERT of the usual size."""
    from bert_jax.cli.programs import parse_pretraining
    from bert_jax.config import BertConfig
    from bert_jax.pretraining import checks, presets
    from bert_jax.training.runs import tracking

    with pytest.MonkeyPatch.context() as patch:
        for module in (checks, presets):
            patch.setattr(module, "source_config", lambda model, **_: BertConfig())
        patch.setattr(tracking, "find_spec", lambda name: name)  # as if each tracker were installed
        checks.check(parse_pretraining(flags))


def check_finetuning(flags: list[str]) -> None:
    """Lets the program's own parser and checks read the flags."""
    from bert_jax.cli.programs import parse_finetuning
    from bert_jax.finetuning.checks import check
    from bert_jax.training.runs import tracking

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "find_spec", lambda name: name)
        check(parse_finetuning(flags))


def check_bert_jax(arguments: list[str]) -> None:
    """Runs the command, except for the training programs, whose flags are read."""
    from bert_jax.cli.main import main

    match arguments:
        case ["--help"]:
            pass
        case ["pretrain", *flags]:
            check_pretraining(flags)
        case ["finetune", *flags]:
            check_finetuning(flags)
        case ["push", *_]:
            with hub_server():
                require(main(arguments) == 0, f"bert-jax {' '.join(arguments)}")
        case _:
            require(main(arguments) == 0, f"bert-jax {' '.join(arguments)}")


def check_make(arguments: list[str]) -> None:
    """Checks that the targets exist, and the commands that make would run for them."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")}
    done = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    require(done.returncode == 0, f"make {' '.join(arguments)}: {done.stderr}")
    for words in commands(done.stdout):
        if words[1:2] != ["-m"] and words[0].endswith("/python"):
            check_python(words[1:])


def check_pip(arguments: list[str]) -> None:
    for word in arguments:
        for names in re.findall(r"\[([^\]]+)\]", word):
            require(set(names.split(",")) <= extras(), word)


@cache
def extras() -> frozenset[str]:
    """The optional dependencies that pyproject.toml declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return frozenset(project["optional-dependencies"])


def flags_of_benchmark(script: str) -> set[str]:
    """Returns the flags that a benchmark declares itself or takes from benchmarks/common."""
    files = [ROOT / script, *(ROOT / "benchmarks" / "common").glob("*.py")]
    declared = re.compile(r'add_argument\(\s*"(--[\w-]+)"')
    return {flag for file in files for flag in declared.findall(file.read_text(encoding="utf-8"))}
