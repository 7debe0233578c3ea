"""Mutation testing: plants one fault at a time in the package, and runs the quick tests.

    pip install cosmic-ray coverage
    python tests/mutants.py --sample 200 --output mutants.jsonl
    python tests/mutants.py --module tal_jax/ops/contrast.py --output contrast.jsonl

Faults come from the operators of cosmic-ray: another arithmetic or comparison operator, a number
off by one, a condition negated, a decorator removed. Each position of a module has one of its
mutants drawn (`--seed`), and `--sample` draws positions of all modules. Annotations are left out:
the mutants of a type that nothing evaluates are equivalent.

A mutant is killed by the module's own tests and examples or, where these pass, by those test files
beside it that execute its line. Which lines a file executes is measured first, file by file, and
kept beside the output. A test run that ends at the timeout counts as killed, so that has to be
several times what all these tests take (5 minutes of one core). Every mutant adds a line to the
output, so a stopped call goes on where it was. The working tree is copied first: nothing in it
changes. Hours for all mutants, so not a part of `.ci/run`.
"""

import argparse
import ast
import concurrent.futures
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import use_mutation
from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("ops", "losses", "methods", "evaluation")
MODULES = ("tal_jax/inference/localize.py", "tal_jax/inference/forward.py")
# Tests of a module that do not bear its name.
MORE_TESTS = {
    "tal_jax/losses/rsmp.py": ("tests/losses/test_rsmp_batch.py",),
    "tal_jax/losses/hamnet.py": ("tests/methods/test_hamnet_method.py",),
    "tal_jax/methods/rsmp.py": ("tests/methods/test_rsmp_search.py",),
    "tal_jax/methods/hamnet.py": ("tests/methods/test_hamnet_method.py",),
    "tal_jax/inference/localize.py": ("tests/ops/test_localization.py",),
    "tal_jax/inference/forward.py": ("tests/data/test_sliding_window.py",),
}
BESIDE = ("ops", "losses", "methods", "models", "evaluation", "inference")
PYTEST = (
    *("-m", "pytest", "-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
    *("-o", "addopts=--import-mode=importlib --doctest-modules -m 'not slow'"),
)
# Test files by module and line that they execute: `{module: {line: [file, ...]}}`.
Reach = dict[str, dict[int, list[str]]]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One fault: the operator's `occurrence`-th place in a module."""

    module: str
    operator: str
    occurrence: int
    line: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--module", action="append", help="path of a module; default all rooms")
    parser.add_argument("--sample", type=int, metavar="N", help="mutants; default all positions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="of a test run")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.jsonl")
    arguments = parser.parse_args()

    chosen = _choose(arguments.module or _modules(), arguments.seed, arguments.sample)
    done = _read(arguments.output)
    left = [one for one in chosen if dataclasses.astuple(one) not in done]
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs, initializer=_copy) as pool:
        reach = _measure_reach(pool, arguments.output.with_suffix(".reach.json"))
        tried = {
            pool.submit(
                _try, one, reach.get(one.module, {}).get(one.line, []), arguments.timeout
            ): one
            for one in left
        }
        for number, future in enumerate(concurrent.futures.as_completed(tried), 1):
            result = future.result()
            with arguments.output.open("a") as file:
                print(json.dumps(result), file=file)
            print(f"{number}/{len(left)} {result['outcome']} {tried[future]}", flush=True)
    _summarize(arguments.output)


def _measure_reach(pool: concurrent.futures.Executor, path: Path) -> Reach:
    """Which test files execute which lines; outer ones, all files that import the module."""
    known = json.loads(path.read_text()) if path.exists() else {}
    tests = [
        str(file.relative_to(ROOT))
        for room in BESIDE
        for file in sorted((ROOT / "tests" / room).glob("test_*.py"))
    ]
    measured = {pool.submit(_executed, name): name for name in tests if name not in known}
    for number, future in enumerate(concurrent.futures.as_completed(measured), 1):
        known[measured[future]] = future.result()
        path.write_text(json.dumps(known))
        print(f"{number}/{len(measured)} reach of {measured[future]}", flush=True)
    reach: Reach = {}
    for name in tests:
        for module, lines in known[name].items():
            for line in lines:
                reach.setdefault(module, {}).setdefault(line, []).append(name)
    return reach


def _modules() -> list[str]:
    found = [path for room in ROOMS for path in sorted((ROOT / "tal_jax" / room).glob("*.py"))]
    return [str(path.relative_to(ROOT)) for path in found] + list(MODULES)


def _choose(modules: list[str], seed: int, sample: int | None) -> list[Mutant]:
    """One mutant of each position, and `sample` of these."""
    rng, chosen = random.Random(seed), []
    for module in modules:
        places: dict[tuple[int, int], list[Mutant]] = {}
        for mutant, position in _mutants(module):
            places.setdefault(position, []).append(mutant)
        chosen += [rng.choice(mutants) for _, mutants in sorted(places.items())]
    return chosen if sample is None else rng.sample(chosen, min(sample, len(chosen)))


def _mutants(module: str) -> Iterator[tuple[Mutant, tuple[int, int]]]:
    tree, silent = get_ast_from_path(ROOT / module), _annotations(module)
    for name in plugins.operator_names():
        operator = plugins.get_operator(name)
        if operator.arguments():  # those that need settings
            continue
        places = (
            start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node)
        )
        for occurrence, start in enumerate(places):
            if not any(first <= start < last for first, last in silent):
                yield Mutant(module, name, occurrence, start[0]), start


def _annotations(module: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    found = []
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        for name in ("annotation", "returns"):
            type_ = getattr(node, name, None)
            if isinstance(type_, ast.expr):
                end = type_.end_lineno or 0, type_.end_col_offset or 0
                found.append(((type_.lineno, type_.col_offset), end))
    return found


# --- in the processes of the pool ---

_tree = Path()


def _copy() -> None:
    global _tree
    _tree = Path(tempfile.mkdtemp(prefix="mutants"))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        target = _tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)


def _executed(test: str) -> dict[str, list[int]]:
    """The lines of the package that a test file executes, by module."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "coverage"
        include = ",".join(f"{_tree}/{module}" for module in _modules())
        measured = ("-m", "coverage", "run", f"--data-file={data}", f"--include={include}")
        process = _pytest([test], None, measured)
        if process.returncode not in (0, 5):  # 5: all of its tests are slow
            raise SystemExit(f"{test} fails without a fault:\n{process.stdout.decode()[-2000:]}")
        found = CoverageData(str(data))
        found.read()
        return {
            str(Path(name).relative_to(_tree.resolve())): sorted(found.lines(name) or ())
            for name in found.measured_files()
        }


def _try(mutant: Mutant, reaching: list[str], timeout_s: float) -> dict:
    operator = plugins.get_operator(mutant.operator)()
    path = _tree / mutant.module
    room, name = path.parent.name, path.stem.removeprefix("_")
    own = [f"tests/{room}/test_{name}.py", *MORE_TESTS.get(mutant.module, ()), mutant.module]
    own = [name for name in own if (_tree / name).exists()]
    beside = [name for name in reaching if name not in own]
    with use_mutation(path, operator, mutant.occurrence) as (before, after):
        changed = [
            new.strip()
            for old, new in zip(before.splitlines(), (after or "").splitlines(), strict=False)
            if old != new
        ]
        killed = after is not None and any(_fails(tests, timeout_s) for tests in (own, beside))
    outcome = "killed" if killed else "none" if after is None else "survived"
    return dataclasses.asdict(mutant) | {"outcome": outcome, "mutated": changed[:1]}


def _fails(tests: list[str], timeout_s: float) -> bool:
    if not tests:
        return False
    try:
        # 5: a file without quick tests.
        return _pytest(tests, timeout_s).returncode not in (0, 5)
    except subprocess.TimeoutExpired:
        return True


def _pytest(
    tests: list[str], timeout_s: float | None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PYTHONPATH": str(_tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "mutants_compiled"),
    }
    environment.pop("TAL_JAX_DATA", None)
    return subprocess.run(
        [sys.executable, *before, *PYTEST, *tests],
        cwd=_tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
    )


# --- results ---


def _read(path: Path) -> set[tuple]:
    if not path.exists():
        return set()
    names = [field.name for field in dataclasses.fields(Mutant)]
    lines = map(json.loads, path.read_text().splitlines())
    return {tuple(line[name] for name in names) for line in lines}


def _summarize(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for module in sorted({line["module"] for line in lines}):
        of_module = [line["outcome"] for line in lines if line["module"] == module]
        killed, tried = of_module.count("killed"), len(of_module) - of_module.count("none")
        print(f"{module:45} {killed:4}/{tried}")
    for line in lines:
        if line["outcome"] == "survived":
            print(f"survived: {line['module']}:{line['line']} {line['operator']} {line['mutated']}")
    killed = sum(line["outcome"] == "killed" for line in lines)
    tried = sum(line["outcome"] != "none" for line in lines)
    print(f"{killed} of {tried} mutants killed")


if __name__ == "__main__":
    main()
