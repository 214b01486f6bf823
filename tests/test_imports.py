"""The layers of the design: imports only go down, and never round in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Layers of the design. Halves order two folders of one layer, one of which builds on the other.
LAYERS = {
    "modern_config": 0, "families": 0.1, "config": 0.2, "files": 0, "messages": 0, "process_start": 0,
    "reference": 0, "functional": 0.5, "models": 1, "text": 1, "metrics": 1,
    "data": 2, "training": 2, "interop": 3, "tasks": 3.5, "pipelines": 3.5, "plotting": 3.5,
    "pretraining": 4, "finetuning": 4, "doctor": 4, "cli": 5, "": 5.5,
}  # fmt: skip
MODEL_SIDE, TEXT_SIDE = {"functional", "models"}, {"text", "data"}


def part(module: str) -> str:
    """`bert_jax.data.pretraining.token_store` -> `data`; the package itself -> the empty string."""
    return module.split(".")[1] if "." in module else ""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "bert_jax").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {node.module} - {"bert_jax"}
    return names


def arrows() -> dict[str, set[str]]:
    known = modules()
    return {
        name: {other for other in imports(path) if other in known and other != name} for name, path in known.items()
    }


def test_imports_go_down():
    for name, others in arrows().items():
        for other in others:
            if part(name) == part(other) or part(name) == "":
                continue
            assert LAYERS[part(other)] < LAYERS[part(name)], f"{name} imports {other}, which is not below it"


def test_model_side_and_text_side_do_not_meet():
    for name, others in arrows().items():
        for other in others:
            sides = {part(name), part(other)}
            assert not (sides & MODEL_SIDE and sides & TEXT_SIDE), f"{name} imports {other}"


def test_training_knows_nothing_of_data():
    for name, others in arrows().items():
        if part(name) == "training":
            assert not {other for other in others if part(other) in TEXT_SIDE}, f"{name} imports the text side"


def test_no_circles():
    graph, done = arrows(), set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in done:
            for other in graph[name]:
                # A package's __init__ gathers what its modules hold, and they may name the package's other modules.
                if not other.startswith(f"{name}.") and not name.startswith(f"{other}."):
                    visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_reference_needs_numpy_alone():
    standard = {"collections", "dataclasses", "math", "typing"}
    for name, path in modules().items():
        if part(name) == "reference":
            for module in imports(path):
                known = module.startswith("bert_jax.reference") or module.split(".")[0] in standard | {"numpy"}
                assert known, f"{name} imports {module}"


def test_flax_stays_with_the_models():
    for name, path in modules().items():
        if part(name) != "models" and name != "bert_jax.training.state":
            assert not {module for module in imports(path) if module.split(".")[0] == "flax"}, f"{name} imports flax"


def test_tyro_stays_with_the_command_lines():
    for name, path in modules().items():
        assert (
            part(name) == "cli"
            or name.endswith(".settings")
            or not {m for m in imports(path) if m.split(".")[0] == "tyro"}
        ), f"{name} imports tyro"


def test_importing_the_package_alone_is_light():
    heavy = {"jax", "flax", "numpy", "tokenizers", "datasets", "torch", "tyro"}
    program = f"import sys, bert_jax; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_tests_mirror_the_package():
    besides = {"benchmarks", "security"}  # what crosses the package
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.relative_to(ROOT / "tests").parent
        if folder.parts and folder.parts[0] not in besides:
            assert (ROOT / "bert_jax" / folder).is_dir(), f"{path} tests no folder of the package"
