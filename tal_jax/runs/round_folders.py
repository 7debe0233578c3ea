"""The folders `round_0`, `round_1`, ... of a work directory."""

from pathlib import Path

ALL_ROUNDS = "all rounds"


def round_folders(workdir: str | Path, containing: str = "") -> list[Path]:
    """Returns the folders of the rounds, in order, that contain a file of a name."""
    folders = [
        folder
        for folder in Path(workdir).glob("round_*")
        if folder.name[6:].isdecimal() and (folder / containing).exists()
    ]
    return sorted(folders, key=lambda folder: int(folder.name[6:]))


def has_all_rounds(workdir: str | Path) -> bool:
    """Whether a work directory has the detections of the ensemble of several rounds."""
    files = ("detections.json", "scores_test.npz")
    several = len(round_folders(workdir, "detections_test.json")) > 1
    return several and all((Path(workdir) / name).exists() for name in files)


def round_title(folder: Path) -> str:
    """Returns the title of a round's folder, or of the work directory for the ensemble."""
    return folder.name.replace("_", " ") if folder.name.startswith("round_") else ALL_ROUNDS
