"""Pinned files against a Hub of our own on this machine, reached by the real huggingface_hub; failures are lines."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from eraseflow import hub

COMMIT = "1" * 40
SOURCE = f"owner/name@{COMMIT}"
FILES = {"model_index.json": b'{"_class_name": "Nothing"}', "unet/weights.safetensors": bytes(range(256)) * 64}


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Of the Hub's interface: a repository's tree, and a file's head and body. `server.refuse` makes it say no."""

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        if self.server.refuse:
            status, code = self.server.refuse
            self.answer(status, **({"X_Error_Code": code} if code else {}))
        elif self.path.startswith(f"/api/{self.server.kind}/owner/name/tree/{COMMIT}"):
            self.answer(200, json.dumps(self.tree()).encode(), Content_Type="application/json")
        else:
            name = self.path.partition(f"/resolve/{COMMIT}/")[2]
            content = FILES[name]
            etag = hashlib.sha256(content).hexdigest() if name.endswith(".safetensors") else blob(content)
            self.answer(200, content, X_Repo_Commit=COMMIT, ETag=f'"{etag}"')

    do_HEAD = do_GET

    def tree(self) -> list[dict]:
        entries = [{"type": "directory", "path": "unet", "oid": "0" * 40, "size": 0}]
        for name, content in FILES.items():
            entry = {"type": "file", "path": name, "oid": blob(content), "size": len(content)}
            if name.endswith(".safetensors"):
                sha = self.server.sha or hashlib.sha256(content).hexdigest()
                entry |= {"oid": "2" * 40, "lfs": {"oid": sha, "size": len(content), "pointerSize": 130}}
            entries.append(entry)
        return entries


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.refuse, server.sha, server.kind = [], None, None, "models"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(call, *arguments) -> str:
    with pytest.raises(SystemExit) as failure:
        call(*arguments)
    message = str(failure.value)
    assert "\n" not in message and message.startswith(str(arguments[0]))
    return message


def test_a_snapshot_holds_what_the_patterns_ask_for(server):
    folder = hub.snapshot(SOURCE, ["unet/*"])
    assert (folder / "unet/weights.safetensors").read_bytes() == FILES["unet/weights.safetensors"]
    assert not (folder / "model_index.json").exists()
    assert "no file that matches vae/*" in refused(hub.snapshot, SOURCE, ["vae/*"])


@pytest.mark.parametrize("name", FILES)
def test_one_file_and_then_again_without_the_hub(server, monkeypatch, name):
    path = hub.file(SOURCE, name)
    assert path.read_bytes() == FILES[name]
    server.refuse = (500, None)
    asked = len(server.seen)
    assert hub.file(SOURCE, name) == path
    assert len(server.seen) == asked


def test_a_dataset_is_asked_for_as_one(server):
    server.kind = "datasets"
    assert hub.file(f"datasets/{SOURCE}", "model_index.json").read_bytes() == FILES["model_index.json"]
    assert all("datasets/owner/name" in path for path in server.seen)


def test_a_file_that_the_repository_lacks(server):
    assert "has no file vae/weights.safetensors" in refused(hub.file, SOURCE, "vae/weights.safetensors")


def test_a_wrong_hash_is_never_handed_out(server):
    server.sha = "3" * 64
    message = refused(hub.snapshot, SOURCE)
    assert "unet/weights.safetensors" in message and "3" * 64 in message and "delete" in message
    assert refused(hub.file, SOURCE, "unet/weights.safetensors") == message


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_in_the_cache_is_noticed(server, name):
    path = hub.file(SOURCE, name).resolve()
    path.write_bytes(FILES[name][:-1] + b"!")
    assert "has the hash" in refused(hub.file, SOURCE, name)


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ((403, "GatedRepo"), "accept the licence at https://huggingface.co/owner/name"),
        ((401, "GatedRepo"), "accept the licence at https://huggingface.co/owner/name"),
        ((403, None), "accept the licence"),
        ((401, None), "no such repository"),
        ((404, "RepoNotFound"), "no such repository"),
        ((404, "RevisionNotFound"), "no such commit"),
        ((418, None), "answers 418"),
    ],
)
def test_what_the_hub_refuses(server, answer, advice):
    """While it lists the files, and while it is asked for one of them."""
    server.refuse = answer
    assert advice in refused(hub.snapshot, SOURCE)
    assert advice in refused(hub.file, SOURCE, "model_index.json")
    server.refuse = None
    hub._hashes(hub._address(SOURCE))
    server.refuse = answer
    assert advice in refused(hub.file, SOURCE, "model_index.json")


def test_offline(server, monkeypatch):
    """The library's own offline mode, and a Hub that does not answer."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in refused(hub.snapshot, SOURCE)
    assert "cannot be reached" in refused(hub.file, SOURCE, "model_index.json")


def test_nobody_answers(server, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # it waits between its attempts
    assert "cannot be reached" in refused(hub.snapshot, SOURCE)


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert "cannot be stored" in refused(hub.snapshot, SOURCE)


def test_a_local_folder_is_used_as_it_is(tmp_path):
    (tmp_path / "weights").write_bytes(b"any")
    assert hub.snapshot(str(tmp_path)) == tmp_path
    assert hub.file(str(tmp_path), "weights") == tmp_path / "weights"
    assert "has no file other" in refused(hub.file, str(tmp_path), "other")


@pytest.mark.parametrize("source", ["owner/name", "owner/name@main", f"owner/name@{COMMIT[:39]}", "nowhere", "a b/c@1"])
def test_an_unpinned_source_is_refused(source):
    assert not hub.is_hub_id(source)
    assert "pinned to a commit" in refused(hub.snapshot, source)
    assert "pinned to a commit" in refused(hub.file, source, "model_index.json")


def test_pinned_sources_are_known():
    assert hub.is_hub_id(SOURCE) and hub.is_hub_id(f"datasets/{SOURCE}")
