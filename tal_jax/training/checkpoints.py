"""Checkpoints of a round: the latest one, and the best one where a criterion is measured.

Beside the folder of checkpoints are the parameters alone that the round ended with, `params.npz`:
to predict with them takes neither Orbax, whose import and restoring cost as much as predicting a
short recording, nor the state of the optimizer.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax

from tal_jax._errors import InputError
from tal_jax.config import flatten, nest
from tal_jax.data import files

LATEST, BEST = "latest", "best"


@contextlib.contextmanager
def open_checkpoints(folder: Path, *, keep_best: bool = False):
    """Yields a `Checkpoints` over a folder; closes it at the end.

    With `keep_best` the one with the highest criterion stays, too; every `save` needs one then.
    """
    # Orbax takes a second to import, so only those pay who keep checkpoints.
    import orbax.checkpoint as ocp

    policies = ocp.checkpoint_managers
    kept: list[Any] = [policies.LatestN(1)]
    if keep_best:
        # `best_fn` with `max_to_keep` alone would delete the latest checkpoint when it is not best.
        kept.append(policies.BestN(get_metric_fn=_criterion_of, n=1))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        best_fn=_criterion_of if keep_best else None,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
        create=False,
        # Of several processes only this one writes and reads.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        yield Checkpoints(manager, ocp, folder)


def write_params(folder: Path, params: Any) -> None:
    """Writes the parameters that a round ended with, beside its folder of checkpoints.

    Raises:
      OSError: if they cannot be written.
    """
    # Random digits hardly get smaller, but take seconds to compress.
    files.write_npz(_params_path(folder), flatten(params), compress=False)


def read_params(folder: Path, *, which: str) -> Any:
    """The parameters that a round ended with, on the device.

    Args:
      folder: of its checkpoints.
      which: the checkpoint that has them, for rounds of versions that wrote checkpoints alone.

    Raises:
      InputError: if there are none, or they cannot be read.
    """
    path = _params_path(folder)
    if path.exists():
        return jax.device_put(nest(files.read_npz(path)))
    with open_checkpoints(folder, keep_best=which == BEST) as saved:
        params = saved.restore_params(which=which)
    if params is None:
        raise InputError(f"{folder}: no checkpoint; expected the one that the round ended with")
    return params


def _params_path(folder: Path) -> Path:
    return folder.parent / "params.npz"


class Checkpoints:
    """Saves and restores training states by their number of updates."""

    def __init__(self, manager: Any, ocp: Any, folder: Path):
        self._manager, self._ocp, self._folder = manager, ocp, folder

    def save(self, step: int, state: Any, *, metrics: dict[str, float] | None = None) -> None:
        """Writes a state; the highest `metrics["criterion"]` decides which one is best.

        Raises:
          OSError: if it cannot be written, in one line; earlier checkpoints stay.
        """
        try:
            self._manager.save(step, args=self._ocp.args.StandardSave(state), metrics=metrics)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise OSError(
                f"cannot write checkpoint {step} in {self._folder}: {_one_line(error)}; the same "
                "run continues from the checkpoint before, if there is one"
            ) from error

    def latest_metrics(self) -> dict[str, float]:
        """What was measured at the latest checkpoint; empty where nothing was."""
        step = self._manager.latest_step()
        return (None if step is None else self._manager.metrics(step)) or {}

    def restore(self, template: Any, *, which: str = LATEST) -> Any | None:
        """Reads the state with the shapes of `template`, or returns None where there is none.

        The `"best"` one is the latest where no criterion was measured.

        Raises:
          InputError: if the checkpoint cannot be read or has other shapes.
        """
        return self._read(which, jax.tree.map(self._ocp.utils.to_shape_dtype_struct, template))

    def restore_params(self, *, which: str = LATEST) -> Any | None:
        """Reads the parameters alone; raises as `restore` does."""
        state = self._read(which, None)
        return None if state is None else state["params"]

    def _read(self, which: str, shapes: Any) -> Any | None:
        step = self._manager.best_step() if which == BEST else None
        step = self._manager.latest_step() if step is None else step
        if step is None:
            return None
        try:
            state = self._manager.restore(step, args=self._ocp.args.StandardRestore(shapes))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise InputError(
                f"{self._folder / str(step)}: cannot restore this checkpoint ({_one_line(error)}); "
                f"delete that folder to continue from an earlier state, or {self._folder} to train "
                "the round again"
            ) from error
        # Orbax ties arrays to their device, which would make other programs of the same functions.
        return jax.device_put(jax.device_get(state))


def _one_line(error: Exception) -> str:
    """The beginning and the end of a message, which hold what failed and why."""
    line = (str(error).strip() or repr(error)).splitlines()[0]
    return line if len(line) <= 250 else f"{line[:100]} … {line[-150:]}"


def _criterion_of(metrics: dict[str, float]) -> float:
    return metrics["criterion"]
