"""The package as users install it: an sdist, the wheel built from it, and a fresh virtual environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from small_runs import SMALL, write_corpus

import bert_jax

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(kind: str, project: Path, output: Path) -> Path:
    """Calls setuptools as `python -m build` does, without its download of setuptools."""
    command = [sys.executable, "-W", "ignore", "-c", BUILD, f"build_{kind}", str(output)]
    printed = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout
    return output / printed.splitlines()[-1]


def clone(project: Path) -> Path:
    """Copies the files of which a distribution is built."""
    shutil.copytree(ROOT / "bert_jax", project / "bert_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(ROOT / name, project)
    return project


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return build("sdist", clone(tmp_path_factory.mktemp("project")), tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """The wheel built from the sdist: what is missing there is missing here."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (project,) = folder.iterdir()
    return build("wheel", project, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh virtual environment with the wheel; the dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    # Folders named in a .pth file are searched, but their own .pth files are not read, so that the editable install of
    # the checkout stays invisible.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return folder


def run(environment: Path, folder: Path, *command: str) -> str:
    """Runs a program of the environment outside the checkout and returns its standard output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    program = environment / "bin" / command[0]
    done = subprocess.run([program, *command[1:]], cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sdist_has_the_package_its_licence_and_its_readme_but_no_tests(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "bert_jax/config.py"} <= names
    assert not {name for name in names if name.startswith("tests")}


def test_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bert_jax").rglob("*") if path.is_file()}
    assert names == {name for name in package if "__pycache__" not in name}
    assert "bert_jax/py.typed" in names


def test_distributions_are_of_one_version_and_accepted_by_twine(sdist, wheel):
    version = bert_jax.__version__
    assert sdist.name == f"bert_jax-{version}.tar.gz"
    assert wheel.name == f"bert_jax-{version}-py3-none-any.whl"
    pytest.importorskip("twine", reason="twine is not installed")
    command = [sys.executable, "-W", "ignore", "-m", "twine", "check", "--strict", str(sdist), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_installed_command_shows_its_help(environment, tmp_path):
    shown = run(environment, tmp_path, "bert-jax", "--help")
    for name in ("pretrain", "finetune", "fill-mask", "convert"):
        assert name in shown
    where = run(environment, tmp_path, "python", "-c", "import bert_jax; print(bert_jax.__file__)")
    assert Path(where.strip()).is_relative_to(environment)


def test_installed_command_pretrains_outside_the_checkout(environment, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    flags = [*SMALL, "--corpus", corpus.name, "--output", "run", "--cache-dir", "cache", "--steps", "5"]
    run(environment, tmp_path, "bert-jax", "pretrain", *flags)
    assert (tmp_path / "run" / "checkpoints" / "5").is_dir()


def test_an_editable_install_is_found_from_the_folder_above_a_clone_named_like_the_package(tmp_path):
    project = clone(tmp_path / "bert_jax")
    site = tmp_path / "site"
    with zipfile.ZipFile(build("editable", project, tmp_path)) as archive:
        archive.extractall(site)
    code = "import site, sys; site.addsitedir(sys.argv[1]); import bert_jax; print(bert_jax.__file__)"
    command = [sys.executable, "-S", "-c", code, str(site)]
    printed = subprocess.run(command, cwd=tmp_path, env={}, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == str(project / "bert_jax" / "__init__.py")
