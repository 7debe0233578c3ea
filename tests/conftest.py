"""Settings and runs that all tests share."""

import dataclasses
import os
import time
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest

# Every call of ops, losses and models is checked against its annotations (tal_jax/_typing.py). This
# has to come before the first import of tal_jax.
CHECKED = ["tal_jax.ops", "tal_jax.losses", "tal_jax.models"]
jaxtyping.install_import_hook(CHECKED, "typecheck.checked")

# A script, which needs a package of its own.
collect_ignore = ["mutants.py"]

# Rooms in which mixed types and ranks are faults; elsewhere optax and orbax mix them.
STRICT = ("ops", "losses", "models")

# Compilation makes the first example of a test slow, and no test writes outside its own folder.
hypothesis.settings.register_profile("tal_jax", deadline=None, database=None)
hypothesis.settings.load_profile("tal_jax")


@pytest.fixture(autouse=True)
def _strict(request):
    if request.path.parent.name not in STRICT:
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session", autouse=True)
def _compiled_programs(tmp_path_factory):
    """Keeps compiled programs for the workers and the processes that tests start.

    In a folder of this call, unless the environment names one that outlives it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "compiled")
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", shared)
    jax.config.update("jax_compilation_cache_dir", folder)


def pytest_collection_modifyitems(items):
    """Files with slow tests begin first, so that none is left over at the end, on one worker."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)  # before its fixtures
def pytest_runtest_setup(item):
    """Slow tests do not begin after a time (seconds since 1970) that the environment names."""
    until = float(os.environ.get("TAL_JAX_SLOW_TESTS_UNTIL", "inf"))
    if item.get_closest_marker("slow") and time.time() > until:
        pytest.skip("a slow test, for which there was no time left")


@dataclasses.dataclass(frozen=True)
class ToyRun:
    """A finished run on the toy problem, to be read, not to be changed."""

    data: Path
    workdir: Path
    fitted: object  # inference.forward.Fitted
    compiled: list[str]  # names of the programs that were compiled, one entry each time
    lines: list[str]  # what was printed


@pytest.fixture(scope="session")
def detector_run(toy_run, tmp_path_factory):
    """The toy run, continued with a second stage that is stopped in the middle and resumed."""
    import shutil

    import toy

    from tal_jax.runs.fit import fit

    workdir, lines = tmp_path_factory.mktemp("detector") / "run", []
    shutil.copytree(toy_run.workdir, workdir)
    dataset, config = toy.dataset(toy_run.data), toy.config(toy_run.data)
    config.stages = ("rounds", "detector")
    config.detector.update(components=8, width=16, steps=60)

    def stop(line):
        lines.append(line)
        if line.startswith("detector  update    40/60"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(dataset, config, workdir=workdir, report=stop)
    fitted = fit(dataset, config, workdir=workdir, report=lines.append)
    return ToyRun(toy_run.data, workdir, fitted, [], lines)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """Two rounds on the toy problem, from scratch."""
    import toy

    from tal_jax.runs.fit import fit

    data = toy.write(tmp_path_factory.mktemp("toy") / "data")
    workdir, lines = data.parent / "run", []
    dataset, config = toy.dataset(data), toy.config(data)
    jax.clear_caches()
    with toy.compilations() as compiled:
        fitted = fit(dataset, config, workdir=workdir, report=lines.append)
    return ToyRun(data, workdir, fitted, compiled, lines)
