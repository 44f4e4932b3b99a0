"""Weights files of the Hugging Face hub, from a server on this machine that answers as the hub does."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from safetensors.numpy import save

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.hub import hub_file
from vision_transfer.models.pretrained.load import load_pretrained

PATHS = "{repo_id}/resolve/{revision}/{filename}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with the files of `hub.files`, by paths such as `timm/vgg/resolve/main/model.safetensors`."""
    constants = pytest.importorskip("huggingface_hub.constants")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            content = hub.files.get(self.path.strip("/"))
            self.send_response(404 if content is None else 200)
            if content is None:
                repository, _, rest = self.path.strip("/").partition("/resolve/")
                known = repository == "timm/vgg"
                code = "RepoNotFound" if not known else "RevisionNotFound" if rest[:4] != "main" else "EntryNotFound"
                self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"abc"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            return content

        def do_GET(self):
            self.wfile.write(self.do_HEAD() or b"")

        def log_message(self, *_):
            pass

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.files = {}
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{hub.server_port}/{PATHS}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield hub
    hub.shutdown()
    hub.server_close()


def test_a_file_of_a_pytorch_library_by_its_name(hub, torch_tensors, params, base_shapes, tmp_path, screen, same):
    base = {layer: params[layer] for layer in base_shapes}
    hub.files["timm/vgg/resolve/main/model.safetensors"] = save(torch_tensors(base))
    for online in (True, False):
        weights = load_pretrained(
            "vgg16",
            include_classifier=False,
            shapes=base_shapes,
            cache_dir=tmp_path,
            screen=screen,
            path="hf:timm/vgg",
            allow_download=online,
        )
        same(weights.params, base)
        assert weights.source == f"hf:timm/vgg, model.safetensors of commit {COMMIT}"
        assert weights.preprocessing == "torch"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf:gone/away", "no public gone/away"),
        ("hf:timm/vgg", "timm/vgg has no file model.safetensors"),
        ("hf:timm/vgg/weights.bin", "has no file weights.bin"),
        ("hf:timm/vgg@old", "no revision old"),
        ("hf:vgg", "expected hf:OWNER/NAME"),
    ],
)
def test_what_the_hub_does_not_have(hub, reference, message):
    with pytest.raises(UserError, match=message):
        hub_file(reference, allow_download=True)


def test_a_closed_network(hub, monkeypatch, closed_port):
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{closed_port.rpartition('/')[0]}/{PATHS}")
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    with pytest.raises(UserError, match=r"the hub cannot be reached.*hf download timm/vgg model.safetensors"):
        hub_file("hf:timm/vgg", allow_download=True)
    with pytest.raises(UserError, match="the network is not used here"):
        hub_file("hf:timm/vgg", allow_download=False)


def test_the_library_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="needs huggingface_hub, which is not installed: pip install"):
        hub_file("hf:timm/vgg", allow_download=True)


def test_the_commit_of_a_file_in_a_folder(hub):
    hub.files["timm/vgg/resolve/main/sub/model.safetensors"] = b"weights"
    file, source = hub_file("hf:timm/vgg/sub/model.safetensors", allow_download=True)
    assert file.read_bytes() == b"weights" and source.endswith(f"sub/model.safetensors of commit {COMMIT}")
