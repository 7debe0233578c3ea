"""Trains a config: `python experiments/train.py --config configs/hapt_rsmp.py --workdir runs/hapt`.

The same as `tal-jax train`, as a script to read and to change. Settings are changed with
`--config.train.steps=100`; the config's argument stands behind a colon, as in `hapt_rsmp.py:quick`.
"""

from absl import app, flags, logging
from ml_collections import config_flags

from tal_jax.datasets.load import load_dataset
from tal_jax.inference.predict import predict
from tal_jax.runs import seeds
from tal_jax.runs.fit import fit

CONFIG = config_flags.DEFINE_config_file("config", help_string="The run's config.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; a stopped run goes on from it.")
DATA = flags.DEFINE_string("data", None, "Where data sets lie; $TAL_JAX_DATA by default.")


def main(argv: list[str]) -> None:
    """Runs the script."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # below, Orbax tells of every file that it writes

    # --- data ---
    config = CONFIG.value
    dataset = load_dataset(config, DATA.value)
    for recording in dataset.train[:3]:
        print(f"{recording.name}: {len(recording.features)} snippets, {recording.points[:2]} …")

    # --- all rounds, each evaluated on the test recordings ---
    fitted = fit(dataset, config, workdir=WORKDIR.value)

    # --- what the networks of all rounds find in one recording ---
    if dataset.test:
        name = dataset.test[0].name
        print(name, predict(fitted, dataset.test[:1])[name][:3])

    # --- report ---
    seeds.write_reports(WORKDIR.value)
    print(seeds.compare_rounds(WORKDIR.value))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
