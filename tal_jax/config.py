"""The defaults of every run: the published hyper-parameters of the point-supervised system."""

import ml_collections


def rsmp_config() -> ml_collections.ConfigDict:
    """All settings of the point-supervised system, with the defaults of THUMOS14."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    config.data.name = "folder"
    config.data.points = "uniform"

    config.sampling = ml_collections.ConfigDict()
    config.sampling.compensate = True
    config.sampling.tau_s = 7.68
    config.sampling.delta = 0.5
    config.sampling.alpha = 0.7
    config.sampling.test_compensation = False

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
    config.loss.topk_ratio = 8
    config.loss.delta = 0.25
    config.loss.select = "all"
    config.loss.temperature = 0.1
    config.loss.max_segments = 64
    config.loss.max_feat_segments = 32

    config.train = ml_collections.ConfigDict()
    config.train.rounds = 4
    config.train.steps = 2000
    config.train.batch_size = 16
    config.train.learning_rate = 1e-4
    config.train.l2 = 5e-4
    config.train.search_every = 10
    config.train.jitter = False
    config.train.warm_start = False
    config.train.max_length = 750
    config.train.log_every = 50
    config.train.checkpoint_every = 500
    config.train.holdout = 0
    config.train.patience = 0

    config.localization = ml_collections.ConfigDict()
    config.localization.class_threshold = 0.5
    config.localization.thresholds = tuple(i * 0.025 for i in range(10))
    config.localization.background_thresholds = tuple(0.5 + i * 0.025 for i in range(9))
    config.localization.video_weight = 0.2
    config.localization.iou_threshold = 0.7

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.tious = tuple(round(0.1 * i, 1) for i in range(1, 8))
    return config


def check_config(
    config: ml_collections.ConfigDict | ml_collections.FrozenConfigDict,
) -> ml_collections.FrozenConfigDict:
    """Checks values and freezes.

    Raises:
      ValueError: naming the key, its value and what was expected.
    """

    def expect(key: str, holds: bool, what: str) -> None:
        if not holds:
            value = config
            for part in key.split("."):
                value = value[part]
            raise ValueError(f"config: {key}={value!r}; expected {what}")

    train, model, loss, sampling = config.train, config.model, config.loss, config.sampling
    for key in ("steps", "rounds", "batch_size", "search_every", "max_length"):
        expect(f"train.{key}", train[key] >= 1, "at least 1")
    for key in ("steps", "log_every", "checkpoint_every"):
        multiple = train[key] >= 1 and train[key] % train.search_every == 0
        expect(f"train.{key}", multiple, f"a multiple of train.search_every={train.search_every}")
    expect("train.learning_rate", train.learning_rate > 0, "more than 0")
    expect("train.l2", train.l2 >= 0, "at least 0")
    expect("train.holdout", train.holdout >= 0, "at least 0")
    needs = train.patience == 0 or (train.patience > 0 and train.holdout > 0)
    expect("train.patience", needs, "0, or more than 0 together with train.holdout > 0")
    same = len(model.widths) == len(model.dilations) and len(model.widths) >= 1
    expect("model.dilations", same, f"one entry for each of model.widths={tuple(model.widths)}")
    expect("model.dropout", 0 <= model.dropout < 1, "at least 0 and below 1")
    expect("model.num_prototypes", model.num_prototypes >= 0, "at least 0")
    expect("model.omega", 0 <= model.omega <= 1, "from 0 to 1")
    expect("model.closed_form", not (model.closed_form and model.omega == 1), "model.omega below 1")
    branches = ("original", "reassigned", "mean")
    expect("model.branch", model.branch in branches, f"one of {', '.join(branches)}")
    expect("loss.select", loss.select in ("all", "best"), "'all' or 'best'")
    expect("loss.topk_ratio", loss.topk_ratio >= 1, "at least 1")
    expect("loss.temperature", loss.temperature > 0, "more than 0")
    for key in ("max_segments", "max_feat_segments"):
        expect(f"loss.{key}", loss[key] >= 2, "at least 2")
    between = config.seeds.force_between
    expect("seeds.force_between", between in ("any", "same"), "'any' or 'same'")
    expect("sampling.tau_s", sampling.tau_s > 0, "more than 0 seconds")
    expect("sampling.delta", sampling.delta >= 0, "at least 0")
    expect("sampling.alpha", 0 <= sampling.alpha <= 1, "from 0 to 1")
    return ml_collections.FrozenConfigDict(config)
