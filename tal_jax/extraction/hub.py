"""Files of models on the Hugging Face hub, through its cache."""

from collections.abc import Sequence
from pathlib import Path

from tal_jax._errors import InputError
from tal_jax.data.files import reason_of


def download(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """Downloads files of a model into the hub's cache; without a network, the cache alone serves.

    `HF_HOME`, `HF_HUB_OFFLINE` and `HF_TOKEN` act as in all programs of the hub.

    Args:
      name: such as "google/videoprism-base-f16r288".
      revision: branch, tag or commit; "" for the main branch.
      patterns: names of the files in its top folder.

    Returns:
      A folder whose name is the commit.

    Raises:
      InputError: if the package `huggingface_hub` is missing, there is no such model or revision,
        it needs an agreement or a login, or there is neither a network nor a copy in the cache.
    """
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
        from huggingface_hub import errors  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            'backbone transformers: not installed; run pip install "tal_jax[transformers]"'
        ) from error
    place = f"{name} at {revision}" if revision else name
    try:
        folder = huggingface_hub.snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],
        )
    except errors.HFValidationError as error:
        raise InputError(f"{name!r} is no name of a model; expected OWNER/NAME") from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"{place}: its owner asks for an agreement; accept it at https://huggingface.co/{name} "
            "and run hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: no such public model on the Hugging Face hub; expected OWNER/NAME, or "
            "path=FOLDER"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{name}: no revision {revision!r}; expected a branch or commit"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{place}: not in the cache of the Hugging Face hub, which cannot be reached; run once "
            "with a network (without HF_HUB_OFFLINE), or set path=FOLDER"
        ) from error
    except Exception as error:  # the network breaks (in any HTTP package), or the disk is full
        raise InputError(f"{place}: cannot be downloaded ({reason_of(error)})") from error
    return Path(folder)
