"""Configs: by name, settings from text, checks, and that the shipped ones are what they say."""

import ast
import json

import ml_collections
import numpy as np
import pytest

from tal_jax import config as configs
from tal_jax import configs as shipped
from tal_jax._errors import InputError
from tal_jax.data.clock import Grid
from tal_jax.data.recordings import Dataset, Point, Recording
from tal_jax.training import automatic

NAMES = (
    "activitynet12_hamnet",
    "activitynet12_rsmp",
    "activitynet13_rsmp",
    "auto",
    "beoid_rsmp",
    "gtea_rsmp",
    "hapt_hamnet",
    "hapt_rsmp",
    "quickstart",
    "thumos14_hamnet",
    "thumos14_rsmp",
    "watch_hamnet",
    "watch_rsmp",
)


def _decided(config):
    """`auto` for the toy problem's sizes: one recording of 200 snippets, two points."""
    features = np.zeros((200, 8), np.float32)
    points = (Point(10.0, 0), Point(30.0, 0))
    recording = Recording("a", features, Grid(10, 5, 15), 100.0, points)
    dataset = Dataset(("bump",), (recording,), (), {"database": {}})
    return automatic.decide(config, dataset)[0]


def test_switches_of_auto_replace_the_data():
    for name in ("hapt", "watch"):
        config, own = configs.load_config(f"auto:quick,{name}"), configs.load_config("auto:quick")
        tuned = configs.load_config(f"{name}_rsmp")
        assert config.data.to_dict() == tuned.data.to_dict() and config.train == own.train
    with pytest.raises(ValueError, match="unknown config switch 'hpat'; did you mean 'hapt'"):
        configs.load_config("auto:hpat")


def test_open_settings_take_values_of_their_type():
    config = configs.load_config("auto")
    for assignment in ("model.widths=(8, 8)", "loss.topk_ratio=20", "train.length=64"):
        configs.override(config, assignment)
    assert config.model.widths == (8, 8) and config.loss.topk_ratio == 20.0
    assert config.train.length == 64
    for wrong in ("train.length=6.5", "model.widths=8", "model.dropout=some"):
        with pytest.raises(ValueError, match="expected"):
            configs.override(config, wrong)


def test_settings_that_are_none_in_a_file_take_values_of_their_type():
    """The config of a finished run is read from JSON, which does not say what None stands for."""
    values = json.loads(json.dumps(configs.load_config("auto").to_dict()))
    config = ml_collections.ConfigDict(values)
    assert config.data.seed is None and config.sampling.tau_s is None
    configs.override(config, "data.seed=3")
    configs.override(config, "sampling.tau_s=5")
    assert (config.data.seed, config.sampling.tau_s) == (3, 5.0)
    config = ml_collections.ConfigDict(values)
    configs.override(config, "sampling.tau_s=None")
    with pytest.raises(ValueError, match="sampling.tau_s=soon; expected a number"):
        configs.override(config, "sampling.tau_s=soon")
    with pytest.raises(ValueError, match="data.seed=0.5; expected a whole number"):
        configs.override(config, "data.seed=0.5")


def test_names():
    assert tuple(configs.config_names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", ["", ":quick", ":document", ":mended"])
def test_shipped_configs(name, arg):
    if arg in (":document", ":mended") and not name.endswith("hamnet"):
        pytest.skip("there are variants of HAM-Net alone")
    config = configs.load_config(name + arg)
    if name == "auto":
        config = _decided(config)
    checked = configs.check_config(config)
    defaults = configs.DEFAULTS[config.method]()
    assert set(config) == set(defaults)
    for section in set(config) - {"data", "seed", "method", "stages"}:
        assert set(config[section]) == set(defaults[section]), section
    if config.method == "hamnet":
        assert config.model.variant == ("document" if arg == ":document" else "published")
    assert config.seed == 0 and config.data.seed is None
    if arg == ":quick":
        full = configs.load_config(name)
        full = _decided(full) if name == "auto" else full
        assert config.train.rounds * config.train.steps < full.train.rounds * full.train.steps
    # Survives the work directory's config.json.
    again = ml_collections.ConfigDict(json.loads(json.dumps(checked.to_dict())))
    assert configs.check_config(again).to_json() == checked.to_json()


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_a_run_card(name):
    path = f"{shipped.__path__[0]}/{name}.py"
    with open(path, encoding="utf-8") as file:
        card = ast.get_docstring(ast.parse(file.read()))
    for line in ("Command:   tal-jax ", "Hardware:  ", "Time:      ", "Result:    "):
        assert line in card


def test_published_hyper_parameters_of_hamnet():
    config = configs.load_config("thumos14_hamnet")
    loss, train, localization = config.loss, config.train, config.localization
    assert (loss.lambda_base, loss.lambda_soft, loss.lambda_semi, loss.lambda_hard) == (
        *(0.8, 0.8),
        *(0.2, 0.2),
    )
    assert (loss.lambda_sparse, loss.lambda_guide, loss.topk_ratio) == (0.8, 0.8, 10)
    assert (config.model.widths, config.model.attention_width) == ((2048, 2048), 512)
    assert (config.model.dropout, config.model.gamma, config.model.smoothing) == (0.7, 0.2, 1)
    assert (train.learning_rate, train.l2, train.batch_size) == (1e-5, 1e-3, 20)
    assert (train.length, train.steps * train.batch_size) == (500, 100 * 200)
    assert (train.jitter, train.nearest, loss.guide_stop_gradient) == (True, True, False)
    assert localization.foreground_thresholds == pytest.approx(
        [0.1 + 0.8 * i / 9 for i in range(10)], abs=1e-6
    )
    assert (localization.soft_sigma, localization.class_threshold) == (0.3, 0.2)
    other = configs.load_config("activitynet12_hamnet")
    loss, train = other.loss, other.train
    assert (loss.lambda_base, loss.lambda_soft, loss.lambda_semi, loss.lambda_hard) == (
        *(0.125, 1.0),
        *(1.0, 0.125),
    )
    assert (loss.lambda_sparse, loss.lambda_guide, loss.topk_ratio) == (0.5, 0.1, 20)
    assert (other.model.smoothing, other.model.dropout, train.length) == (17, 0.5, 80)
    mended = configs.load_config("thumos14_hamnet:mended")
    assert (mended.train.jitter, mended.train.nearest) == (True, False)
    assert mended.loss.guide_stop_gradient and mended.model.variant == "published"
    document = configs.load_config("thumos14_hamnet:document")
    assert (document.model.low, document.model.high, document.model.drop_rate) == (0.2, 0.8, 0.8)
    assert document.loss.lambda_hard == document.loss.lambda_semi == 1


def test_published_hyper_parameters():
    config = configs.load_config("thumos14_rsmp")
    assert config.sampling.tau_s == 12 * 16 / 25 and config.sampling.alpha == 0.7
    assert (config.sampling.delta, config.loss.delta) == (0.5, 0.25)
    model = config.model
    assert (model.num_prototypes, model.gamma, model.omega, model.num_iters) == (8, 5, 0.5, 2)
    assert (model.widths, model.dropout) == ((2048,), 0.7)
    assert (config.seeds.action_threshold, config.seeds.background_threshold) == (0.1, 0.95)
    loss, train = config.loss, config.train
    assert (loss.lambda_vid, loss.lambda_point, loss.lambda_pres, loss.lambda_ins) == (1, 1, 1, 1)
    assert (loss.action_weight, loss.temperature, loss.topk_ratio) == (0.5, 0.1, 8)
    assert (train.rounds, train.steps, train.batch_size, train.length) == (4, 2000, 16, 750)
    assert (train.learning_rate, train.l2, train.search_every) == (1e-4, 5e-4, 10)
    thresholds = config.localization.thresholds
    assert thresholds == pytest.approx([0.025 * i for i in range(10)])
    assert config.localization.foreground_thresholds == pytest.approx(
        [0.5, 0.525, 0.55, 0.575, 0.6, 0.625, 0.65, 0.675, 0.7]
    )
    assert config.evaluation.tious == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("train.steps=40", 40),
        ("train.learning_rate=1e-3", 1e-3),
        ("train.learning_rate=1", 1.0),
        ("train.jitter=True", True),
        ("train.jitter=true", True),
        ("model.widths=(64, 32)", (64, 32)),
        ("model.widths=64,32", (64, 32)),
        ("model.widths=[64]", (64,)),
        ("localization.thresholds=(0, .1)", (0.0, 0.1)),
        ("loss.select='best'", "best"),
        ("loss.select=best", "best"),
        ("data.folder=2024", "2024"),
        ("data.folder=a=b", "a=b"),
        ("data.folder=", ""),
        ("data.seed=7", 7),
        ("data.seed=None", None),
        ("seed=3", 3),
    ],
)
def test_override(assignment, value):
    config = configs.rsmp_config()
    configs.override(config, assignment)
    for part in assignment.split("=")[0].split("."):
        config = config[part]
    assert config == value and type(config) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.stps=3", "no key 'train.stps'; did you mean 'train.steps'?"),
        ("train.step=3", "did you mean 'train.steps'?"),
        ("learning_rate=3", "did you mean 'train.learning_rate'?"),
        ("train=3", "no key 'train'"),
        ("train.steps.more=3", "no key 'train.steps.more'; did you mean 'train.steps'?"),
        ("train.steps", "expected key=value"),
        ("train.steps=1.5", "train.steps=1.5; expected a whole number, such as 2000"),
        ("train.steps=True", "expected a whole number"),
        ("train.steps=many", "expected a whole number"),
        ("train.l2=True", "expected a number"),
        ("train.jitter=1", "expected True or False"),
        ("model.widths=64", r"expected values in parentheses, such as \(2048,\)"),
        ("model.widths=(64.5,)", "expected values in parentheses"),
        ("data.seed=x", "data.seed=x; expected a whole number$"),
    ],
)
def test_override_refuses(assignment, message):
    config = configs.rsmp_config()
    before = config.to_json()
    with pytest.raises(ValueError, match=message):
        configs.override(config, assignment)
    assert config.to_json() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hapt", "unknown config 'hapt'; did you mean 'hapt_rsmp'"),
        ("hapt_rsmp:quik", "unknown config switch 'quik'; did you mean 'quick'"),
        ("hapt_rsmp:", "unknown config switch ''"),
        ("missing/config.py", "config missing/config.py: no such file"),
    ],
)
def test_unknown_config(name, message):
    with pytest.raises(ValueError, match=message):
        configs.load_config(name)


def test_config_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tal_jax.config import rsmp_config\n"
        "def get_config(arg='7'):\n"
        "    config = rsmp_config()\n"
        "    config.seed = int(arg)\n"
        "    return config\n"
    )
    assert configs.load_config(str(path)).seed == 7
    assert configs.load_config(f"{path}:9").seed == 9
    path.write_text("config = 3\n")
    with pytest.raises(ValueError, match="has no get_config"):
        configs.load_config(str(path))


@pytest.mark.parametrize(
    ("text", "switches", "message"),
    [
        ("def get_config(:\n", "", "line 1: .*; expected Python"),
        ("\0", "", "expected Python"),
        ("def get_config():\n    return 1\n", ":quick", "takes no switches such as 'quick'; expec"),
        ("def get_config(arg):\n    return 1\n", "", "cannot be called: missing .*'arg'; expected"),
        (
            "def get_config():\n    return 1\n",
            "",
            "its get_config returns int; expected `def get_c",
        ),
        ("get_config = 3\n", "", "its get_config cannot be called: 3 is not a callable"),
    ],
)
def test_files_that_are_no_config(tmp_path, text, switches, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^config .*mine.py'?: .*{message}") as caught:
        configs.load_config(f"{path}{switches}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed=-1", "seed=-1; expected at least 0"),
        ("data.seed=-1", "data.seed=-1; expected at least 0, or None for `seed`"),
        ("train.steps=0", "train.steps=0; expected at least 1"),
        ("train.steps=15", "train.steps=15; expected a multiple of train.search_every=10"),
        ("train.log_every=7", "train.log_every=7; expected a multiple"),
        ("train.checkpoint_every=0", "train.checkpoint_every=0; expected a multiple"),
        ("train.length=0", "train.length=0; expected at least 1"),
        ("train.learning_rate=0", "train.learning_rate=0.0; expected more than 0"),
        (
            "train.features=disk",
            "train.features='disk'; expected one of auto, resident, streamed",
        ),
        ("train.l2=-1", "train.l2=-1.0; expected at least 0"),
        ("train.patience=2", "more than 0 with train.holdout > 0"),
        ("model.widths=(8, 8)", r"one entry for each of model.widths=\(8, 8\)"),
        ("model.dropout=1", "model.dropout=1.0; expected at least 0 and below 1"),
        ("model.omega=2", "model.omega=2.0; expected from 0 to 1"),
        ("model.branch=best", "model.branch='best'; expected one of original, reassigned, mean"),
        ("loss.select=some", "loss.select='some'; expected 'all' or 'best'"),
        ("loss.topk_ratio=0", "loss.topk_ratio=0.0; expected at least 1"),
        ("loss.temperature=0", "loss.temperature=0.0; expected more than 0"),
        ("seeds.force_between=none", "seeds.force_between='none'; expected 'any' or 'same'"),
        ("sampling.tau_s=0", "sampling.tau_s=0.0; expected more than 0 seconds"),
        ("sampling.alpha=1.5", "sampling.alpha=1.5; expected from 0 to 1"),
        ("model.num_iters=-1", "model.num_iters=-1; expected at least 0"),
        ("model.widths=(8, 0)", r"model.widths=\(8, 0\); expected at least 1 each"),
        ("evaluation.tious=()", r"evaluation.tious=\(\); expected numbers in \(0, 1\]"),
        ("evaluation.tious=(0.5, 1.5)", r"expected numbers in \(0, 1\]"),
        ("localization.delta=-1", "localization.delta=-1.0; expected at least 0"),
        ("localization.iou_threshold=2", "localization.iou_threshold=2.0; expected from 0 to 1"),
    ],
)
def test_check_config_refuses(assignment, message):
    config = configs.rsmp_config()
    configs.override(config, assignment)
    with pytest.raises(ValueError, match=message) as caught:
        configs.check_config(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("rounds", ("rounds",)),
        ('("rounds",)', ("rounds",)),
        ("rounds,detector", ("rounds", "detector")),
        ("('rounds', 'detector')", ("rounds", "detector")),
    ],
)
def test_stages_need_no_quotes(text, stages):
    config = configs.rsmp_config()
    configs.override(config, f"stages={text}")
    assert configs.check_config(config).stages == stages


@pytest.mark.parametrize("text", ["detector", "detector,rounds", "round", "", "()"])
def test_other_stages_are_refused(text):
    config = configs.rsmp_config()
    configs.override(config, f"stages={text}")
    message = r"config: stages=\(.*\); expected \('rounds',\) or \('rounds', 'detector'\)"
    with pytest.raises(ValueError, match=message):
        configs.check_config(config)
    with pytest.raises(ValueError, match=r"stages=3; expected values in parentheses, such as"):
        configs.override(config, "stages=3")
