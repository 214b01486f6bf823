"""How the programs start and end: output at once, one line for an error, an exit code that supervisors know."""

import os
import platform
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from bert_jax.cli import process, programs
from bert_jax.training.metric_logger import NotFinite
from bert_jax.training.runs.interruption import Interrupted

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from bert_jax.cli import process

def program():
    {body}

sys.exit(process.run(program, "x.py", not_resumable=("--plan",)))
"""


def raises(error):
    def program():
        raise error

    return program


def as_user(command, **options):
    """Starts a process as a user's shell does, in which no variable says how Python writes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment | {"PYTHONPATH": str(ROOT)}, **(pipes | options))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "RUN"], "x.py: interrupted; to resume: python x.py --output RUN --resume --begin\n"),
        (["--output", "RUN", "--sweep"], "x.py: interrupted\n"),
        (["--output", "RUN", "--do=predict"], "x.py: interrupted\n"),
    ],
)
def test_ctrl_c_prints_the_command_to_resume_if_there_is_one(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["x.py", *words])
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", *words])
    assert process.run(raises(KeyboardInterrupt), "x.py", not_resumable=("--sweep", "predict")) == 130
    assert capsys.readouterr().err == message


def test_ctrl_c_ends_a_command_that_has_no_run_quietly(capsys):
    assert process.run(raises(KeyboardInterrupt), "bert-jax") == 130
    assert capsys.readouterr().err == ""


def test_the_command_to_resume_is_the_one_that_was_given(monkeypatch):
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py", "--output", "my run", "--overwrite"])
    assert process.command_to_resume() == "python train.py --output 'my run' --resume"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("two\nlines"), "x.py: two lines"),
        (
            FileNotFoundError(2, "No such file or directory", "absent.txt"),
            "x.py: absent.txt: No such file or directory",
        ),
        (ImportError("install bert_jax[demo]"), "x.py: install bert_jax[demo]"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_1(capsys, error, message):
    assert process.run(raises(error), "x.py") == 1
    assert capsys.readouterr().err == f"{message}\n"


FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory for 7 bytes\nBuffers: ...\n")


@pytest.mark.parametrize(
    ("error", "not_resumable", "code", "message"),
    [
        (FULL, (), 1, "out of memory: lower --batch-size or --max-length, "),
        (FULL, None, 1, "out of memory (RESOURCE_EXHAUSTED: no memory for 7 bytes)"),
        (NotFinite("step 2: loss nan:\nstopped"), (), 1, "step 2: loss nan: stopped"),
        (Interrupted(signal.SIGTERM, 7), (), 143, "SIGTERM: saved at step 7; to resume: "),
    ],
)
def test_the_end_of_a_run_is_one_line_and_an_exit_code(capsys, monkeypatch, error, not_resumable, code, message):
    monkeypatch.setattr("sys.orig_argv", ["python", "x.py", "--output", "RUN", "--overwrite"])
    assert process.run(raises(error), "x.py", not_resumable=not_resumable) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"x.py: {message}")
    assert line.endswith("; to resume: python x.py --output RUN --resume") == isinstance(error, Interrupted)


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), jax.errors.JaxRuntimeError("INTERNAL: bug")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error), match="bug"):
        process.run(raises(error), "x.py")


def test_warnings_are_one_line(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert process.run(lambda: warnings.warn("two\nlines", stacklevel=1), "x.py") == 0
    assert capsys.readouterr().err == "x.py: warning: two lines\n"


def test_a_line_is_in_a_log_file_when_it_is_printed(tmp_path):
    script = PROGRAM.format(body="print('first'); sys.stdin.read()")
    path = tmp_path / "log"
    with path.open("w") as log, as_user([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=log) as waiting:
        end = time.monotonic() + 30
        while not path.read_text() and time.monotonic() < end:
            time.sleep(0.01)
        waiting.kill()
    assert path.read_text() == "first\n"


@pytest.mark.parametrize("ending", ["raise ValueError('last')", "warnings.warn('last')", "raise KeyboardInterrupt"])
def test_messages_are_in_a_log_file_in_the_order_of_their_events(tmp_path, ending):
    """Standard output and standard error in one file, as in a scheduler's log."""
    script = PROGRAM.format(body=f"import warnings; print('first'); print('second'); {ending}")
    path = tmp_path / "log"
    with path.open("w") as log, as_user([sys.executable, "-c", script], stdout=log, stderr=subprocess.STDOUT) as ending:
        ending.wait()
    lines = path.read_text().splitlines()
    assert lines[:2] == ["first", "second"]
    assert lines[2].startswith("x.py: ")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", rb"caf\xe9 \u65e5 \U0001f600 \ud800 \udc80"),
        ("latin-1", b"caf\xe9 \\u65e5 \\U0001f600 \\ud800 \\udc80"),
        ("utf-8", "café 日 \U0001f600 \\ud800 \\udc80".encode()),
        ("ascii:strict", rb"caf\xe9 \u65e5 \U0001f600 \ud800 \udc80"),
        ("utf-8:surrogateescape", "café 日 \U0001f600 \\ud800 \\udc80".encode()),
    ],
)
def test_text_that_standard_output_cannot_encode_is_escaped(encoding, shown):
    script = PROGRAM.format(body=r"print('caf\xe9 \u65e5 \U0001f600 \ud800 \udc80')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", script], check=False, env=environment, capture_output=True)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (shown, b"", 0)


@pytest.mark.parametrize(("closed", "code"), [(">&-", 1), ("2>&-", 0)])
def test_a_closed_standard_output_is_an_error_and_a_closed_standard_error_is_not(closed, code):
    script = PROGRAM.format(body="print('first'); print(sys.stderr.isatty())")
    with as_user(["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", script]) as process:
        output, error = process.communicate()
    assert process.returncode == code
    assert output == ("" if code else "first\nFalse\n")
    assert error == ("x.py: standard output is closed: there is nowhere to write to\n" if code else "")


@pytest.mark.parametrize("size", [1, 100_000])  # a large line does not go through the buffer
def test_a_reader_who_has_gone_ends_the_program_quietly(size):
    script = PROGRAM.format(body=f"[print('x' * {size}) for _ in iter(int, 1)]")
    with as_user([sys.executable, "-c", script]) as printing:
        printing.stdout.readline()
        printing.stdout.close()
        assert printing.stderr.read() == ""
        assert printing.wait() == 141


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_a_training_program_keeps_freed_memory_on_a_cpu():
    """A block of 64 MiB that is freed and allocated again costs no page faults."""
    body = (
        "import resource; block = bytearray(1 << 26); del block; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; block = bytearray(1 << 26); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = []
    for name in ("cpu", "cuda"):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": name}
        command = [sys.executable, "-c", PROGRAM.format(body=body)]
        faults.append(int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))
    assert faults[0] < 100 < 1000 < faults[1]


def test_no_option_of_glibc_is_set_after_one_that_it_refuses(monkeypatch):
    given = []
    refuse = SimpleNamespace(mallopt=lambda option, value: given.append(option) or 0)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: refuse)
    process._keep_freed_memory()
    assert given == [-3]  # M_MMAP_THRESHOLD, which glibc before 2.35 refuses


@pytest.mark.parametrize(
    ("program", "flags"),
    [(programs.pretrain, ["--steps", "0"]), (programs.finetune, ["classification", "--model", "M", "--epochs", "0"])],
)
def test_an_invalid_command_makes_no_cache_folder(program, flags, monkeypatch):
    made = []
    monkeypatch.setattr(programs, "keep_compiled", made.append)
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        program(flags)
    assert not made


def test_processes_join_before_the_cache_folder_is_made_so_that_one_of_them_prints(monkeypatch):
    calls = []
    monkeypatch.setattr(programs.pretraining.processes, "join", lambda *_: calls.append("join"))
    monkeypatch.setattr(programs, "keep_compiled", lambda home: calls.append("cache"))
    monkeypatch.setattr(programs.pretraining, "pretrain", lambda settings: calls.append("train"))
    programs.pretrain(["--distributed"])
    assert calls == ["join", "cache", "train"]
    calls.clear()
    programs.pretrain([])
    assert calls == ["cache", "train"]


def test_another_broken_pipe_is_an_error(capsys):
    assert process.run(raises(BrokenPipeError(32, "Broken pipe")), "x.py") == 1
    assert "Broken pipe" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["train.py", "finetune.py"])
def test_ctrl_c_during_the_imports_gives_no_traceback(program):
    """Here the import of JAX says that it has begun, and takes a minute."""
    blocked = (
        "import builtins, runpy, sys, time\n"
        "real = builtins.__import__\n"
        "def slow(name, *rest, **more):\n"
        "    if name == 'jax': print('importing', flush=True); time.sleep(60)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = slow\n"
        f"sys.argv = [{program!r}]\n"
        f"runpy.run_path({str(ROOT / program)!r}, run_name='__main__')\n"
    )
    with as_user([sys.executable, "-c", blocked]) as importing:
        assert importing.stdout.readline() == "importing\n"
        importing.send_signal(signal.SIGINT)
        assert importing.stderr.read().startswith(f"{program}: interrupted; to resume: ")
        assert importing.wait() == 130
