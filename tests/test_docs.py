"""The site and the README: examples run, commands parse, and no public name is left out."""

import configparser
import importlib
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

import tal_jax as tal
from tal_jax import cli
from tal_jax.config import hamnet_config, load_config, override, rsmp_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _fences(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def _commands(path: Path) -> list[str]:
    """The `tal-jax` commands of a page: of its code blocks, and those in its text with flags."""
    text = path.read_text()
    blocks = re.findall(r"^(?: {4}|\t)+(.*)$", text.replace("\\\n", " "), re.MULTILINE)
    spans = re.findall(r"`(tal-jax [^`]*--[^`]*)`", text)
    commands = [part for block in blocks for part in re.split(r"&&|\s# ", block)]
    found = [command.strip() for command in [*commands, *spans]]
    return [one for one in found if re.match(r"tal-jax [a-z]", one) and "…" not in one]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["take_an_op", "from_arrays"])
def test_examples_run(name, tmp_path):
    example = runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))
    if name == "from_arrays":
        best = example["main"](tmp_path)["d"][0]
        clicks = example["made_up_recording"](3)[1]
        start_s, end_s = best["segment"]
        assert end_s - start_s < 20 and any(start_s < click < end_s for click in clicks)
    else:
        example["main"]()


def test_all_examples_are_run():
    assert {path.stem for path in (ROOT / "docs" / "examples").glob("*.py")} == {
        "take_an_op",
        "from_arrays",
    }


def test_pages_include_every_part_of_the_examples():
    shown = {
        part
        for page in PAGES
        for part in re.findall(r'^--8<-- "examples/(\w+\.py:\w+)"$', page.read_text(), re.MULTILINE)
    }
    parts = {
        f"{path.name}:{part}"
        for path in (ROOT / "docs" / "examples").glob("*.py")
        for part in re.findall(r"# --8<-- \[start:(\w+)\]", path.read_text())
    }
    assert parts == shown


@pytest.mark.parametrize("page", ["README.md", "docs/clock.md"])
def test_python_of_a_page_runs(page):
    scope = {}
    for code in _fences(ROOT / page, "python"):
        exec(code, scope)  # noqa: S102
        for line in code.splitlines():
            shown = re.match(r"(grid\..*?)\s+# ([\d.]+)", line)
            assert not shown or eval(shown[1], scope) == pytest.approx(float(shown[2]))


@pytest.mark.slow
def test_figures_are_drawn(tmp_path):
    draw = runpy.run_path(str(ROOT / "docs" / "figures" / "draw.py"))
    draw["main"](tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in (ROOT / "docs" / "figures").glob("*.svg")}
    shown = {name for page in PAGES for name in re.findall(r"figures/(\w+\.svg)", page.read_text())}
    assert made == shown


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_parse(page, capsys):
    """Every command of a page has flags that exist, configs that exist, and settings they have."""
    for command in _commands(page):
        words = shlex.split(command)[1:]
        try:
            arguments = cli._parser().parse_args(words)
        except SystemExit as stop:
            if stop.code:
                pytest.fail(f"{page.name}: {command}: {capsys.readouterr().err}")
            continue
        config = getattr(arguments, "config", None)
        if config and not config.isupper():  # NAME, C: any
            config = load_config(config)
            for assignment in arguments.set:
                override(config, assignment)


def test_api_pages_list_every_public_name():
    listed = set()
    for page in (ROOT / "docs" / "api").glob("*.md"):
        listed |= set(re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE))
    for name in tal.__all__:
        home = getattr(getattr(tal, name), "__module__", None)
        assert {f"tal_jax.{name}", home} & listed, f"docs/api lists {name} nowhere"


def test_settings_have_their_defaults():
    """The tables of docs/api/config.md against the configs: every key, and its values."""
    text = (ROOT / "docs" / "api" / "config.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \| .+ \|$", text, re.MULTILINE)
    rows = {key: values for key, *values in rows}
    configs = []
    for config in (rsmp_config().to_dict(), hamnet_config().to_dict()):
        sections = {key: config.pop(key) for key in list(config) if isinstance(config[key], dict)}
        named = {f"{s}.{key}": value for s, part in sections.items() for key, value in part.items()}
        configs.append(config | named)
    assert set(rows) == set(configs[0]) | set(configs[1])
    for key, cells in rows.items():
        for config, cell in zip(configs, cells, strict=True):
            if "…" in cell:  # the first, the second and the last of many
                first, second, last = (float(part) for part in re.findall(r"[\d.]+", cell))
                shown = (config[key][0], config[key][1], config[key][-1])
                assert shown == pytest.approx((first, second, last), abs=5e-4), key
            elif key in config:
                value = config[key]
                assert cell.strip("`") == (
                    value
                    if value and isinstance(value, str)
                    else '""'
                    if value == ""
                    else repr(value)
                ), key
            else:
                assert cell == "–", key


def test_rooms_stand_in_their_order():
    """The table of docs/architecture.md against the contract that import-linter checks."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:rooms"]["layers"].split("\n")
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Rooms")[2]
    rooms = re.findall(r"^\| `(\w+)/?` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert rooms == [layer.strip() for layer in reversed(layers) if layer.strip().isalpha()]


def test_names_of_modules_exist():
    """Every `tal_jax.….name` that a page shows or writes in code font."""
    for page in PAGES:
        for name in re.findall(r"(?:`|::: )(tal_jax(?:\.\w+)+)", page.read_text()):
            parent, _, last = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(parent), last), f"{page.name}: {name}"


def test_json_of_pages():
    for page in PAGES:
        for text in _fences(page, "json"):
            json.loads(text)


def test_links_of_the_readme():
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
