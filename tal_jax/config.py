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

    config.localization = ml_collections.ConfigDict()
    config.localization.class_threshold = 0.5
    config.localization.thresholds = tuple(i * 0.025 for i in range(10))
    config.localization.background_thresholds = tuple(0.5 + i * 0.025 for i in range(9))
    config.localization.video_weight = 0.2
    config.localization.iou_threshold = 0.7

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.tious = tuple(round(0.1 * i, 1) for i in range(1, 8))
    return config
