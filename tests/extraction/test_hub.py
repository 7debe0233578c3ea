"""Models by their names, from a hub on this machine: its pages, its cache, and what it refuses."""

import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import video_models

from tal_jax import cli
from tal_jax.data.manifest import read_manifest
from tal_jax.extraction import open_backbone, reopen_backbone

hub = pytest.importorskip("huggingface_hub")
NAME, COMMIT, OTHER = "someone/tiny-videomae", "a" * 40, "b" * 40
# The top folder holds what is needed, and much that is not.
NEEDED = {"config.json", "model.safetensors", "preprocessor_config.json"}


class _Hub(http.server.BaseHTTPRequestHandler):
    """The pages of the hub that a download asks for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path))
        revisions = {"main": COMMIT, "refs%2Fpr%2F4": OTHER, COMMIT: COMMIT, OTHER: OTHER}
        _, api, *rest = path.split("/")
        if api == "api" and rest[1:3] != NAME.split("/"):
            gated = rest[2] == "gated"
            return self._answer(b"", 403 if gated else 404, code="Gated" if gated else "Repo")
        if api == "api" and rest[3] == "revision":
            if rest[4] not in revisions:
                return self._answer(b"", 404, code="Revision")
            return self._answer(json.dumps({"id": NAME, "sha": revisions[rest[4]]}).encode())
        files = self.server.files
        if api == "api" and rest[3] == "tree":
            rows = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in files.items()
            ]
            return self._answer(json.dumps(rows).encode())
        commit, name = rest[2], "/".join(rest[3:])
        return self._answer(files[name], commit=commit, tag=f"{name}-{commit}".replace("/", "-"))

    def _answer(self, content, status=200, code=None, commit=None, tag=None):
        self.send_response(status)
        if code:
            names = {"Repo": "RepoNotFound", "Revision": "RevisionNotFound", "Gated": "GatedRepo"}
            self.send_header("X-Error-Code", names[code])
        if tag:
            self.send_header("ETag", f'"{tag}"')
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The files of a tiny model of the real class."""
    folder = tmp_path_factory.mktemp("model")
    video_models.save(folder, "videomae")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(model, tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.files = model | {
        "README.md": b"# A model",
        "pytorch_model.bin": b"a pickle",
        "modeling_tiny.py": b"raise SystemExit",
        "onnx/model.safetensors": b"other weights",
    }
    server.asked = []
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(hub.constants, "ENDPOINT", address)
    pages = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", pages)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _offline(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)


pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_name_downloads_the_needed_files_once_and_is_pinned_to_a_commit(
    server, model, tmp_path, monkeypatch
):
    backbone = open_backbone("transformers", model=NAME)
    cache = tmp_path / "hub" / "models--someone--tiny-videomae"
    assert (cache / "refs" / "main").read_text() == COMMIT
    assert {path.name for path in (cache / "snapshots" / COMMIT).iterdir()} == NEEDED
    assert (backbone.revision, backbone.path, backbone.window) == (COMMIT, "", 8)

    # The same model in a folder gives the same features and version.
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in NEEDED:
        (folder / name).write_bytes(model[name])
    local = open_backbone("transformers", path=folder)
    assert local.version == backbone.version
    windows = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(local(windows), backbone(windows))

    # With the commit, nothing is asked for again; without a network the cache serves all.
    server.asked.clear()
    again = open_backbone("transformers", **backbone.options)
    assert again == backbone and not [one for one in server.asked if one[0] == "GET"]
    _offline(monkeypatch)
    assert open_backbone("transformers", model=NAME) == backbone
    assert open_backbone("transformers", **backbone.options) == backbone


def test_a_revision_of_a_pull_request(server, tmp_path):
    """Where weights without pickle are offered, as for VideoPrism and ViViT."""
    backbone = open_backbone("transformers", model=NAME, revision="refs/pr/4")
    assert backbone.revision == OTHER


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model": "someone/none"}, "someone/none: no such public model on the Hugging Face hub"),
        ({"model": "someone/gated"}, "someone/gated: its owner asks for an agreement"),
        ({"model": NAME, "revision": "v9"}, "tiny-videomae: no revision 'v9'"),
        ({"model": "a/b/c"}, "'a/b/c' is no name of a model; expected OWNER/NAME"),
        ({}, "expected model=NAME of a model on the Hugging Face hub"),
        ({"model": NAME, "path": "/somewhere"}, "expected model=NAME"),
        ({"path": "/somewhere", "revision": "v1"}, "expected model=NAME"),
        ({"model": NAME, "window": 4}, "window is 4 frames; a videomae model needs 8 .fps"),
    ],
)
def test_what_is_refused_in_one_line_before_anything_is_written(
    server, tmp_path, capsys, options, message
):
    with pytest.raises(ValueError, match=message) as error:
        open_backbone("transformers", **options)
    assert "\n" not in str(error.value)
    (tmp_path / "a.mp4").write_bytes(b"")
    settings = [part for pair in options.items() for part in ("--set", "{}={}".format(*pair))]
    command = ["extract", str(tmp_path / "a.mp4"), "--output", str(tmp_path / "out")]
    assert cli.main([*command, "--backbone", "transformers", *settings]) == 2
    shown = capsys.readouterr().err  # after the progress of the download
    assert shown.count("\n") <= 3 and shown.splitlines()[-1].startswith("tal-jax: error: ")
    assert not (tmp_path / "out").exists()


def test_without_a_network_or_a_copy(server, monkeypatch):
    _offline(monkeypatch)
    with pytest.raises(ValueError, match="not in the cache of the Hugging Face hub"):
        open_backbone("transformers", model=NAME)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(ValueError, match="not in the cache of the Hugging Face hub"):
        open_backbone("transformers", model=NAME)


def test_a_model_with_pickled_weights_alone_or_missing_parts(server):
    files = server.files
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    server.files = files | {"model.safetensors.index.json": json.dumps(index).encode()}
    with pytest.raises(ValueError, match="no model-00001-of-00002.safetensors, which .*index.json"):
        open_backbone("transformers", model=NAME)
    server.files = {name: files[name] for name in files if name != "model.safetensors"}
    with pytest.raises(ValueError, match="no weights, expected .*refs/pr/NUMBER"):
        open_backbone("transformers", model=NAME, revision="refs/pr/4")


@pytest.mark.slow
def test_the_manifest_reopens_it_on_another_machine(server, tmp_path):
    pytest.importorskip("av")
    import filming

    from tal_jax.extraction import extract_folder

    filming.film(tmp_path / "a.mp4", range(40))
    backbone = open_backbone("transformers", model=NAME)
    found = extract_folder([tmp_path / "a.mp4"], tmp_path / "out", backbone)
    assert not found.failed
    manifest = read_manifest(tmp_path / "out")
    assert manifest.options["model"] == NAME and manifest.options["revision"] == COMMIT
    assert manifest.version == backbone.version
    assert reopen_backbone(manifest.backbone, manifest.options, {}) == backbone

    # Where the weights lie elsewhere, a path replaces the name; the version identifies them.
    folder = Path(backbone._folder)
    local = reopen_backbone(manifest.backbone, manifest.options, {"path": str(folder)})
    assert (local.path, local.model, local.version) == (str(folder), "", backbone.version)
    assert not extract_folder([tmp_path / "a.mp4"], tmp_path / "out", local).done
