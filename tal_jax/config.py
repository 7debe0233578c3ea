"""Run configs: defaults, loading by name, overrides from text, checks.

The defaults are the published hyper-parameters of each method. A config is a module that defines
`get_config(arg=None)`; those in `configs/` are installed as `tal_jax.configs`.
"""

import ast
import difflib
import importlib
import inspect
import math
import pkgutil
import runpy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections
from ml_collections import config_dict

from tal_jax._errors import InputError

# A `ConfigDict` or `FrozenConfigDict`, whose attributes have no static types.
Config = Any


def rsmp_config() -> ml_collections.ConfigDict:
    """Default config of RSMP, point-supervised localization: published values for THUMOS14."""
    config = _shared_config("rsmp")
    config.sampling.compensate = True

    config.model = ml_collections.ConfigDict()
    config.model.widths = (2048,)
    config.model.dilations = (1,)
    config.model.dropout = 0.7
    config.model.num_prototypes = 8
    config.model.gamma = 5.0
    config.model.omega = 0.5
    config.model.num_iters = 2
    config.model.closed_form = False
    config.model.branch = "mean"
    config.model.precision = "float32"

    config.seeds = ml_collections.ConfigDict()
    config.seeds.action_threshold = 0.1
    config.seeds.background_threshold = 0.95
    config.seeds.force_between = "any"

    config.loss = ml_collections.ConfigDict()
    config.loss.lambda_vid = 1.0
    config.loss.lambda_point = 1.0
    config.loss.lambda_pres = 1.0
    config.loss.lambda_ins = 1.0
    config.loss.action_weight = 0.5
    config.loss.feat_weight = 1.0
    # Top-k pooling (MIL) uses k = max(1, ⌊T / topk_ratio⌋).
    config.loss.topk_ratio = 8.0
    config.loss.delta = 0.25
    config.loss.select = "all"
    config.loss.temperature = 0.1
    return config


HAMNET_SWITCHES = ("quick", "document", "mended")  # of the run cards


def hamnet_config(variant: str = "published") -> ml_collections.ConfigDict:
    """Default config of HAM-Net, video-level supervision: published values for THUMOS14.

    Args:
      variant: `"published"`, the network, losses and sampling of the paper; `"mended"`, the same
        network with a guide loss that leaves the classifier alone, and with features interpolated
        between snippets in training as in inference; or `"document"`.
    """
    published = variant in ("published", "mended")
    config = _shared_config("hamnet")

    config.model = ml_collections.ConfigDict()
    config.model.variant = "published" if published else variant
    config.model.widths = (2048, 2048)
    config.model.attention_width = 512
    config.model.dropout = 0.7
    config.model.gamma = 0.2
    config.model.low = 0.2
    config.model.high = 0.8
    config.model.drop_rate = 0.8
    config.model.smoothing = 1
    config.model.branch = "attended"
    config.model.precision = "float32"

    config.loss = ml_collections.ConfigDict()
    config.loss.lambda_base = 0.8 if published else 1.0
    config.loss.lambda_soft = 0.8
    config.loss.lambda_semi = 0.2 if published else 1.0
    config.loss.lambda_hard = 0.2 if published else 1.0
    config.loss.lambda_sparse = 0.8
    config.loss.lambda_guide = 0.8
    config.loss.guide_stop_gradient = variant == "mended"
    config.loss.topk_ratio = 10.0

    config.train.rounds = 1
    # 100 epochs of 200 recordings in batches of 20.
    config.train.steps = 1000
    config.train.batch_size = 20
    config.train.learning_rate = 1e-5
    config.train.l2 = 1e-3
    # One random snippet of each of this many equal parts of a recording.
    config.train.length = 500
    config.train.jitter = True
    config.train.nearest = variant == "published"

    levels = tuple(round(0.1 + 0.8 * i / 9, 6) for i in range(10))
    config.localization.class_threshold = 0.2
    config.localization.thresholds = () if published else levels
    config.localization.foreground_thresholds = levels if published else ()
    config.localization.soft_sigma = 0.3
    return config


DEFAULTS = {"rsmp": rsmp_config, "hamnet": hamnet_config}


def hamnet_variant(switches: Iterable[str]) -> str:
    """The variant of `hamnet_config` among a config's switches; "published" without one.

    >>> hamnet_variant(["quick", "document"])
    'document'
    """
    found = sorted(set(switches) - {"quick"}) or ["published"]
    if len(found) > 1:
        raise InputError(f"config switches {', '.join(found)}; expected one of them")
    return found[0]


def _shared_config(method: str) -> Config:
    """The settings that all methods share."""
    config: Config = ml_collections.ConfigDict()
    config.method = method
    config.seed = 0

    config.data = folder_config()

    config.sampling = ml_collections.ConfigDict()
    config.sampling.compensate = False
    config.sampling.keep_original = False
    # None decides it in every round from the lengths of the pseudo instances.
    config.sampling.tau_s = 7.68
    config.sampling.delta = 0.5
    config.sampling.alpha = 0.7
    # Only proposals with a point of their class lengthen the timeline: every action has one.
    config.sampling.own_point = True
    config.sampling.test_compensation = False

    config.train = ml_collections.ConfigDict()
    config.train.rounds = 4
    config.train.steps = 2000
    config.train.batch_size = 16
    config.train.learning_rate = 1e-4
    config.train.l2 = 5e-4
    # "constant", or "cosine": the learning rate falls to 0 over the updates of a round.
    config.train.schedule = "constant"
    config.train.search_every = 10
    # Samples of a recording at random times of their cells; then also whole snippets, without
    # interpolation.
    config.train.jitter = False
    config.train.nearest = False
    # Updates read recordings faster or slower by a random factor of up to this; 1 does not.
    config.train.max_speed = 1.0
    config.train.warm_start = False
    # Snippets of a recording in an update: with point labels a random window of a longer recording,
    # with video-level labels this many positions spread over it.
    config.train.length = 750
    config.train.layer_shards = 1
    # "resident" on the device, "streamed" from the files, or "auto", which depends on their size.
    config.train.features = "auto"
    config.train.log_every = 50
    config.train.checkpoint_every = 500
    config.train.holdout = 0
    config.train.patience = 0

    config.localization = ml_collections.ConfigDict()
    config.localization.class_threshold = 0.5
    config.localization.thresholds = tuple(i * 0.025 for i in range(10))
    config.localization.foreground_thresholds = tuple(0.5 + i * 0.025 for i in range(9))
    config.localization.video_weight = 0.2
    config.localization.delta = 0.25
    config.localization.min_outer = 0.0
    config.localization.iou_threshold = 0.7
    # Width of soft-NMS, for detections. Proposals, and detections where this is 0, use NMS with
    # `iou_threshold`.
    config.localization.soft_sigma = 0.5

    # The second stage, which learns the ends of actions from the pseudo segments of all rounds.
    config.stages = ("rounds",)
    config.detector = ml_collections.ConfigDict()
    config.detector.components = 128
    config.detector.width = 128
    # Levels of the pyramid; 0 takes as many as the longest pseudo segments need.
    config.detector.num_levels = 0
    config.detector.dropout = 0.3
    config.detector.lambda_ends = 1.0
    config.detector.steps = 400
    config.detector.batch_size = 4
    config.detector.learning_rate = 1e-3
    config.detector.l2 = 1e-4

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.tious = tuple(round(0.1 * i, 1) for i in range(1, 8))
    config.evaluation.drop_ambiguous = False
    return config


MOST_LEVELS = 8  # of the detector's pyramid, where the pseudo segments decide


def detector_config(config: Config, num_levels: int) -> ml_collections.FrozenConfigDict:
    """The config of the second stage: what `training` needs of a run's config, for the detector."""
    own, train = config.detector.to_dict(), config.train.to_dict()
    model = {name: own[name] for name in ("width", "dropout")}
    for name in ("steps", "batch_size", "learning_rate", "l2"):
        train[name] = own[name]
    # Few components fit on every device, and a small network on one.
    train |= {"features": "resident", "layer_shards": 1, "jitter": False, "nearest": False}
    train |= {"max_speed": 1.0}
    train |= {"schedule": "cosine", "patience": 0, "holdout": 0}
    values = {
        "method": "detector",
        "seed": config.seed,
        "model": model | {"num_levels": num_levels, "precision": "float32"},
        "loss": {"lambda_ends": own["lambda_ends"]},
        "train": train,
    }
    return ml_collections.FrozenConfigDict(values)


def data_config(name: str, **settings: Any) -> ml_collections.ConfigDict:
    """The `data` section of a config.

    Args:
      name: of the data set, see `tal_jax.datasets.load`.
      **settings: settings of this data set, in addition to the supervision, the point distribution
        and its seed.
    """
    shared = {"points": "uniform", "supervision": "points", "segments_share": 1.0}
    data: Config = ml_collections.ConfigDict({"name": name, **shared, **settings})
    # None stands for the seed of the run.
    data.seed = config_dict.placeholder(int)
    return data


def folder_config(**settings: Any) -> ml_collections.ConfigDict:
    """The `data` section of a config for a folder of features.

    Args:
      **settings: changes to the defaults: points drawn uniformly; annotations, subsets and points
        detected from the files (""); for features without a clock, that of I3D features of
        THUMOS14; features that are not standardised, as I3D features need not be.
    """
    defaults = dict(
        folder="",
        annotations="",
        point_file="",
        train_subset="",
        test_subset="",
        split="files",
        overlapping=("CliffDiving/Diving",),
        fps=25.0,
        stride_frames=16.0,
        window_frames=16.0,
        standardize=False,
        allow_pickle=False,
    )
    return data_config("folder", **defaults | settings)


def config_names() -> list[str]:
    """The names of the installed configs."""
    # Imported here: the configs are in the package only once it is installed.
    configs = importlib.import_module("tal_jax.configs")
    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load_config(name: str) -> ml_collections.ConfigDict:
    """Loads a config by name.

    >>> load_config("thumos14_rsmp:quick").train.rounds
    2

    Args:
      name: an installed config (`"hapt_rsmp"`) or the path of a `.py` file; after a colon, the
        argument of its `get_config` (`"hapt_rsmp:quick"`).

    Raises:
      InputError: if there is no such config, its argument is unknown, the file is no Python, or its
        `get_config` takes no argument or returns no config.
    """
    head, colon, arg = name.rpartition(":")
    if not colon:
        head, arg = name, None
    names = _load_file(Path(head)) if head.endswith(".py") else _load_installed(head)
    expected = "expected `def get_config(arg=None)`, which returns a ConfigDict"
    if "get_config" not in names:
        raise InputError(f"config {head!r} has no get_config; {expected}")
    given = () if arg is None else (arg,)
    try:
        inspect.signature(names["get_config"]).bind(*given)
    except TypeError as error:
        switches = f"takes no switches such as {arg!r}" if given else f"cannot be called: {error}"
        raise InputError(f"config {head!r}: its get_config {switches}; {expected}") from error
    config = names["get_config"](*given)
    if not isinstance(config, ml_collections.ConfigDict):
        kind = type(config).__name__
        raise InputError(f"config {head!r}: its get_config returns {kind}; {expected}")
    return config


def parse_switches(arg: str | None, known: Iterable[str]) -> frozenset[str]:
    """Parses the argument of a `get_config`: comma-separated switches.

    >>> sorted(parse_switches("quick", known=["quick"]))
    ['quick']
    >>> parse_switches("quik", known=["quick"])
    Traceback (most recent call last):
      ...
    tal_jax._errors.InputError: unknown config switch 'quik'; did you mean 'quick'?

    Args:
      arg: the text after the colon of a config's name; None without a colon.
      known: all switches of the config.

    Raises:
      InputError: if a switch is unknown.
    """
    known = list(known)
    given = [] if arg is None else arg.split(",")
    for switch in given:
        if switch not in known:
            raise InputError(
                f"unknown config switch {switch!r}; did you mean {nearest(switch, known)!r}?"
            )
    return frozenset(given)


def override(config: ml_collections.ConfigDict, assignment: str) -> None:
    """Sets a value of a config from text, as of `--set`.

    >>> config = rsmp_config()
    >>> override(config, "model.widths=(64, 64)")
    >>> override(config, "data.points=center")
    >>> override(config, "stages=rounds,detector")
    >>> config.model.widths, config.data.points, config.stages
    ((64, 64), 'center', ('rounds', 'detector'))

    Args:
      config: to change.
      assignment: `"section.key=value"`, the value as a Python literal; strings need no quotes,
        and several of them only commas.

    Raises:
      InputError: if there is no such key, or the value has another type.
    """
    key, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"setting {assignment!r}; expected key=value, such as train.steps=300")
    keys = flatten(config.to_dict())
    if key not in keys:
        raise InputError(f"config has no key {key!r}; did you mean {nearest(key, keys)!r}?")
    *sections, last = key.split(".")
    section: Config = config
    for name in sections:
        section = section[name]
    kind = section.get_type(last)
    if kind is type(None):
        kind = NULLABLE.get(key, object)
    section[last] = _parse_value(key, text, section[last], kind)


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the known name most similar to a wrong one, for messages.

    >>> nearest("learning_rte", ["train.learning_rate", "train.steps"])
    'train.learning_rate'
    """
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def _load_installed(name: str) -> dict[str, Any]:
    names = config_names()
    if name not in names:
        raise InputError(
            f"unknown config {name!r}; did you mean {nearest(name, names)!r}? There are "
            f"{', '.join(names)}, and paths that end in .py"
        )
    return vars(importlib.import_module(f"tal_jax.configs.{name}"))


def _load_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"config {path}: no such file")
    try:
        compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:  # the latter for null bytes, in Python 3.11
        line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else error
        raise InputError(f"config {path}: {line}; expected Python") from error
    return runpy.run_path(str(path), run_name=path.stem)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted keys."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What `flatten` flattened.

    >>> nest({"train.steps": 20, "seed": 0})
    {'train': {'steps': 20}, 'seed': 0}
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        part = nested
        for name in sections:
            part = part.setdefault(name, {})
        part[last] = value
    return nested


# Settings that may be None while a run goes on, and their types, which JSON does not have. All
# others have a value before it begins.
NULLABLE = {"data.seed": int, "sampling.tau_s": float}

_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "values in parentheses",
}


def _parse_value(key: str, text: str, default: Any, kind: type) -> Any:
    """Parses a value of the type of the key."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text, text)
    if kind is str:
        return value if isinstance(value, str) else text
    if kind is object or (default is None and value is None):
        return value
    if kind is tuple and default and isinstance(default[0], str) and isinstance(value, str):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    items = value if kind is tuple and isinstance(value, tuple | list) else None
    if items is not None and default:
        items = [_as_kind(item, type(default[0])) for item in items]
    value = _as_kind(value, kind) if items is None else tuple(items)
    if value is None or (items is not None and None in items):
        example = "" if default is None else f", such as {default!r}"
        raise InputError(f"config: {key}={text}; expected {_KINDS[kind]}{example}")
    return value


def _as_kind(value: Any, kind: type) -> Any:
    """The value as a `kind`, or None if it is of another type."""
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    matches = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return value if matches else None


def check_config(
    config: ml_collections.ConfigDict | ml_collections.FrozenConfigDict,
) -> ml_collections.FrozenConfigDict:
    """Checks the values of a config and freezes it.

    Raises:
      InputError: with the key, its value and the expected values.
    """
    values: Config = config

    def expect(key: str, holds: bool, what: str) -> None:
        if not holds:
            value = values
            for part in key.split("."):
                value = value[part]
            raise InputError(f"config: {key}={value!r}; expected {what}")

    expect("method", values.method in DEFAULTS, f"one of {', '.join(DEFAULTS)}")
    expect("seed", values.seed >= 0, "at least 0")
    expect("data.seed", (values.data.get("seed") or 0) >= 0, "at least 0, or None for `seed`")
    for key, value in flatten(values.to_dict()).items():
        left_open = value is None and key not in NULLABLE and not key.startswith("data.")
        expect(key, not left_open, "a value; `training.automatic.decide` sets it from the data")
    train, sampling, localization = values.train, values.sampling, values.localization
    for key in ("steps", "rounds", "batch_size", "search_every", "length", "layer_shards"):
        expect(f"train.{key}", train[key] >= 1, "at least 1")
    for key in ("steps", "log_every", "checkpoint_every"):
        multiple = train[key] >= 1 and train[key] % train.search_every == 0
        expect(f"train.{key}", multiple, f"a multiple of train.search_every={train.search_every}")
    wide = all(isinstance(width, int) and width >= 1 for width in values.model.widths)
    expect("model.widths", wide, "at least 1 each")
    expect("train.learning_rate", train.learning_rate > 0, "more than 0")
    expect("train.l2", train.l2 >= 0, "at least 0")
    expect("train.max_speed", 1 <= train.max_speed < math.inf, "at least 1")
    modes = ("auto", "resident", "streamed")
    expect("train.features", train.features in modes, f"one of {', '.join(modes)}")
    schedules = ("constant", "cosine")
    expect("train.schedule", train.schedule in schedules, f"one of {', '.join(schedules)}")
    expect("train.holdout", train.holdout >= 0, "at least 0")
    needs = train.patience == 0 or (train.patience > 0 and train.holdout > 0)
    expect("train.patience", needs, "0, or more than 0 with train.holdout > 0")
    expect("model.dropout", 0 <= values.model.dropout < 1, "at least 0 and below 1")
    precise = values.model.precision in ("float32", "bfloat16")
    expect("model.precision", precise, "'float32' or 'bfloat16'")
    expect("loss.topk_ratio", values.loss.topk_ratio >= 1, "at least 1")
    seconds = sampling.tau_s is None or sampling.tau_s > 0
    expect("sampling.tau_s", seconds, "more than 0 seconds, or None for the proposals' own lengths")
    tests = sampling.tau_s is not None or not sampling.test_compensation
    expect("sampling.test_compensation", tests, "False without a value of sampling.tau_s")
    expect("sampling.delta", sampling.delta >= 0, "at least 0")
    expect("sampling.alpha", 0 <= sampling.alpha <= 1, "from 0 to 1")
    for key in ("thresholds", "foreground_thresholds"):
        numbers = all(isinstance(level, int | float) for level in localization[key])
        expect(f"localization.{key}", numbers, "numbers")
    expect("localization.delta", localization.delta >= 0, "at least 0")
    expect("localization.iou_threshold", 0 <= localization.iou_threshold <= 1, "from 0 to 1")
    expect("localization.min_outer", localization.min_outer >= 0, "at least 0 snippets")
    expect("localization.soft_sigma", localization.soft_sigma >= 0, "at least 0")
    some = len(localization.thresholds) + len(localization.foreground_thresholds) > 0
    expect("localization.thresholds", some, "some, or some localization.foreground_thresholds")
    _check_stages(values, expect)
    tious = values.evaluation.tious
    fractions = len(tious) > 0 and all(0 < tiou <= 1 for tiou in tious)
    expect("evaluation.tious", fractions, "numbers in (0, 1]")
    _CHECKS[values.method](values, expect)
    return ml_collections.FrozenConfigDict(config)


STAGES = ("rounds", "detector")


def _check_stages(config: Config, expect: Callable[[str, bool, str], None]) -> None:
    stages, detector = tuple(config.stages), config.detector
    expect("stages", stages in (STAGES[:1], STAGES), f"{STAGES[:1]} or {STAGES}")
    points = config.method == "rsmp" or "detector" not in stages
    expect("stages", points, f"{STAGES[:1]}: the detector learns from points, method rsmp")
    for key in ("components", "width", "steps", "batch_size"):
        expect(f"detector.{key}", detector[key] >= 1, "at least 1")
    every = config.train.search_every
    multiple = detector.steps % every == 0
    expect("detector.steps", multiple, f"a multiple of train.search_every={every}")
    expect("detector.num_levels", 0 <= detector.num_levels <= 10, "from 1 to 10, or 0")
    expect("detector.dropout", 0 <= detector.dropout < 1, "at least 0 and below 1")
    expect("detector.learning_rate", detector.learning_rate > 0, "more than 0")
    expect("detector.l2", detector.l2 >= 0, "at least 0")
    expect("detector.lambda_ends", detector.lambda_ends >= 0, "at least 0")


def _check_rsmp(config: Config, expect: Callable[[str, bool, str], None]) -> None:
    model, loss = config.model, config.loss
    same = len(model.widths) == len(model.dilations) and len(model.widths) >= 1
    expect("model.dilations", same, f"one entry for each of model.widths={tuple(model.widths)}")
    expect("model.num_iters", model.num_iters >= 0, "at least 0")
    expect("model.num_prototypes", model.num_prototypes >= 0, "at least 0")
    expect("model.omega", 0 <= model.omega <= 1, "from 0 to 1")
    expect("model.closed_form", not (model.closed_form and model.omega == 1), "model.omega below 1")
    branches = ("original", "reassigned", "mean")
    expect("model.branch", model.branch in branches, f"one of {', '.join(branches)}")
    expect("loss.select", loss.select in ("all", "best"), "'all' or 'best'")
    expect("loss.temperature", loss.temperature > 0, "more than 0")
    between = config.seeds.force_between
    expect("seeds.force_between", between in ("any", "same"), "'any' or 'same'")


def _check_hamnet(config: Config, expect: Callable[[str, bool, str], None]) -> None:
    model = config.model
    variants = ("document", "published")
    expect("model.variant", model.variant in variants, f"one of {', '.join(variants)}")
    branches = ("attended", "base")
    expect("model.branch", model.branch in branches, f"one of {', '.join(branches)}")
    expect("model.widths", len(model.widths) >= 1, "at least one layer")
    expect("model.low", 0 <= model.low <= model.high, "from 0 to model.high")
    expect("model.high", model.high <= 1, "at most 1")
    expect("model.drop_rate", 0 <= model.drop_rate <= 1, "from 0 to 1")
    expect("model.gamma", 0 <= model.gamma <= 1, "from 0 to 1")
    odd = model.smoothing >= 1 and model.smoothing % 2 == 1
    expect("model.smoothing", odd, "an odd number of snippets")


_CHECKS = {"rsmp": _check_rsmp, "hamnet": _check_hamnet}
