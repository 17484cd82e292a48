"""The house: who imports whom, and what the trainer must not know."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

import optim
from tests.jobs import ROOT

ROOMS = {  # room: the rooms that it may import, as whole folders
    "storage": set(),
    "configs": set(),
    "data": {"configs", "storage"},
    "record": {"configs", "storage"},
    "optim": {"configs"},
    "launch": {"configs", "record"},
    "contest": {"configs", "launch", "optim", "record", "storage"},
    "report": {"configs", "record", "storage"},
    "train_gpt2.py": {"configs", "data", "launch", "optim", "record"},
    "analysis": {"configs", "data", "optim", "record", "storage", "train_gpt2"},
    "sample.py": {"analysis", "configs", "data", "launch", "record", "train_gpt2"},
    "export.py": {"analysis", "configs", "launch", "record"},
}
PACKAGES = {name.removesuffix(".py") for name in ROOMS} | {"bench", "tests"}


def imports(file):
    """Dotted names that a file imports, from anywhere in it; of `from a import b` also a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    path = ROOT / room
    for file in [path] if path.is_file() else path.rglob("*.py"):
        for name in imports(file):
            other = name.split(".")[0]
            if other in PACKAGES - {room}:
                assert other in ROOMS[room], f"{file.relative_to(ROOT)} imports {name}"


def test_no_files_import_each_other_in_a_circle():
    """Wherever in the file they do it; a package's name stands for its __init__.py."""
    files = {}
    for room in [*ROOMS, "bench"]:
        path = ROOT / room
        for file in [path] if path.is_file() else path.rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            files[name.removesuffix(".__init__")] = file
    graph = {
        name: {other for other in imports(file) if other in files and other != name}
        for name, file in files.items()
    }
    assert graph["train_gpt2"] >= {"record.runlog", "record.checkpoints"}  # the graph is there
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_trainer_names_no_optimizer_and_no_schedule():
    code = ast.parse((ROOT / "train_gpt2.py").read_text())
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(code)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    words = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words |= set() if id(node) in documentation else set(re.findall(r"\w+", node.value))
        elif isinstance(node, ast.Name | ast.Attribute):
            words.add(node.id if isinstance(node, ast.Name) else node.attr)
    # `step`, `power` and the like are also plain words; as names of arms they would be strings.
    names = {*optim.OPTIMIZERS, *optim.SCHEDULES} - {"step", "linear", "power", "constant"}
    assert not {word.lower() for word in words} & names


def product_files():
    """All files of the rooms and of bench/, with their syntax trees."""
    for room in [*ROOMS, "bench"]:
        path = ROOT / room
        for file in [path] if path.is_file() else path.rglob("*.py"):
            yield file, ast.parse(file.read_text())


def test_trainer_can_be_read_at_one_sitting():
    text = (ROOT / "train_gpt2.py").read_text()
    assert len(text.splitlines()) <= 480
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert max(n.end_lineno - n.lineno for n in functions) < 150
    assert not [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Nonlocal | ast.Global)]


def test_files_are_short_enough_to_read():
    assert not [
        str(file) for file, _ in product_files() if len(file.read_text().splitlines()) > 600
    ]


def test_formatter_shapes_all_of_the_product():
    assert not [str(file) for file, _ in product_files() if "fmt: " + "skip" in file.read_text()]


def test_a_function_that_no_other_file_uses_has_an_underscore():
    used = {}  # name -> files that import it, or use it as an attribute
    inside = (path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    for file in [*ROOT.glob("*.py"), *inside]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [node.attr] if isinstance(node, ast.Attribute) else []
            for name in names:
                used.setdefault(name, set()).add(file)
    for file, tree in product_files():
        if file.relative_to(ROOT).parts[0] in ("bench", "train_gpt2.py", "sample.py"):  # read whole
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                elsewhere = used.get(node.name, set()) - {file}
                assert elsewhere or node.name == "main", f"{file.relative_to(ROOT)}: {node.name}"


def test_what_trains_needs_no_optional_package():
    """Only torch, numpy, pydantic and tomli-w; also the program that is run on a fresh machine."""
    optional = {"wandb", "plotly", "datasets", "tiktoken", "matplotlib", "transformers"}
    optional |= {"tqdm", "rich", "scipy", "statsmodels", "safetensors", "psutil", "pytest"}
    programs = [f"bench.gpu.{path.stem}" for path in (ROOT / "bench/gpu").glob("*.py")]
    code = f"""
import sys
sys.modules |= dict.fromkeys({optional})  # an import of one of them fails
for package in ("configs", "data", "record.runlog", "optim", "train_gpt2", *{programs}):
    __import__(package)
    print(package)
"""
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert len(output.split()) == 5 + len(programs)


@pytest.mark.parametrize("room", ["analysis", "contest", "data", "launch", "report"])
def test_help_of_a_command_does_without_what_takes_seconds_to_import(room):
    code = f"""
import runpy, sys
sys.argv = [{room!r}, "--help"]
try:
    runpy.run_module({room!r}, run_name="__main__")
except SystemExit:
    print("imported:", *{{"torch", "scipy", "optuna", "wandb"}} & sys.modules.keys())
"""
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert output.startswith("usage: ")
    assert output.splitlines()[-1] == "imported:"
