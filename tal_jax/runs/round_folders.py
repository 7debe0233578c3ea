"""The folders `round_0`, `round_1`, ... of a work directory, and those of its stages."""

from pathlib import Path

ALL_ROUNDS, DETECTOR, ALL_STAGES = "all rounds", "detector", "all stages"
ALL_ROUNDS_FOLDER, DETECTOR_FOLDER = "all_rounds", "detector"
# Of all recordings, and what a retraining changed: see `runs.warm_start`.
ALL_DETECTIONS, ALL_SCORES, CHANGES = "detections_all.json", "scores_all.npz", "changes.json"


def round_folders(workdir: str | Path, containing: str = "") -> list[Path]:
    """Returns the folders of the rounds, in order, that contain a file of a name."""
    folders = [
        folder
        for folder in Path(workdir).glob("round_*")
        if folder.name[6:].isdecimal() and (folder / containing).exists()
    ]
    return sorted(folders, key=lambda folder: int(folder.name[6:]))


def result_folders(workdir: str | Path, containing: str = "") -> dict[str, Path]:
    """Returns the folders with results by their titles: rounds, the ensemble of these, and stages.

    Args:
      workdir: of a run.
      containing: a file that every round and the detector must have.
    """
    workdir = Path(workdir)
    folders = {one.name.replace("_", " "): one for one in round_folders(workdir, containing)}
    if has_detector(workdir):
        if (workdir / ALL_ROUNDS_FOLDER).exists():
            folders[ALL_ROUNDS] = workdir / ALL_ROUNDS_FOLDER
        folders[DETECTOR] = workdir / DETECTOR_FOLDER
        folders[ALL_STAGES] = workdir
    elif has_all_rounds(workdir):
        folders[ALL_ROUNDS] = workdir
    return folders


def detections_path(workdir: str | Path, folder: Path) -> Path:
    """Returns the file with the detections of one of the `result_folders`."""
    return folder / ("detections.json" if folder == Path(workdir) else "detections_test.json")


def has_all_rounds(workdir: str | Path) -> bool:
    """Whether a work directory has the detections of the ensemble of several rounds."""
    files = ("detections.json", "scores_test.npz")
    several = len(round_folders(workdir, "detections_test.json")) > 1
    return several and all((Path(workdir) / name).exists() for name in files)


def has_detector(workdir: str | Path) -> bool:
    """Whether a work directory has the results of both stages."""
    return (Path(workdir) / DETECTOR_FOLDER / "evaluation.json").exists()
