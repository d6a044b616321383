"""Pinned files against a Hub of our own on this machine, reached by the real huggingface_hub; failures are lines."""

import gc
import hashlib
import json
import os
import threading
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download, snapshot_download

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
    monkeypatch.setattr(hub.notes, "OWN", tmp_path / "own")
    monkeypatch.setattr(hub.hashes, "out_of_reach", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
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


def test_the_names_of_a_sources_files(server):
    assert hub.names(SOURCE) == list(FILES)
    assert all(name not in path for name in FILES for path in server.seen), "none of them is fetched"


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
    hub.hashes.known(hub._address(SOURCE), bool)
    server.refuse = answer
    assert advice in refused(hub.file, SOURCE, "model_index.json")


def test_offline(server, monkeypatch):
    """The library's own offline mode, and a Hub that does not answer."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in refused(hub.snapshot, SOURCE)
    assert "cannot be reached" in refused(hub.file, SOURCE, "model_index.json")


WEIGHTS = "unet/weights.safetensors"


@pytest.fixture
def filled(server, tmp_path, monkeypatch) -> Path:
    """The folder of the commit in a cache that `hf download` has filled file by file, the Hub out of reach since."""
    for name in FILES:
        hf_hub_download("owner/name", name, revision=COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.seen.clear()
    return tmp_path / "cache/models--owner--name/snapshots" / COMMIT


def test_a_cache_filled_elsewhere_is_used_and_checked_without_the_hub(filled, server):
    assert hub.snapshot(SOURCE) == filled and hub.snapshot(SOURCE, ["unet/*"]) == filled
    assert hub.file(SOURCE, WEIGHTS) == filled / WEIGHTS
    assert not server.seen
    (filled / WEIGHTS).resolve().write_bytes(FILES[WEIGHTS][:-1] + b"!")
    message = refused(hub.snapshot, SOURCE)
    assert WEIGHTS in message and "by its name in the cache" in message and "delete" in message
    assert refused(hub.file, SOURCE, WEIGHTS) == message
    assert hub.file(SOURCE, "model_index.json").is_file()


def test_a_cache_filled_as_a_whole_knows_what_it_lacks(server, tmp_path, monkeypatch):
    folder = Path(snapshot_download("owner/name", revision=COMMIT))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.snapshot(SOURCE) == folder
    (folder / WEIGHTS).unlink()
    for call, what in ((hub.snapshot, None), (hub.file, WEIGHTS)):
        message = refused(call, SOURCE, what)
        assert f"cannot be reached (OfflineModeIsEnabled) and {WEIGHTS} is not in {tmp_path}" in message


def test_a_part_of_a_cache(filled):
    """Without a listing a missing file is noticed where it is asked for by name, or an index names it."""
    (filled / WEIGHTS).resolve().unlink()  # as after an interrupted download: the blob is not there
    assert hub.snapshot(SOURCE) == filled
    assert "cannot be reached" in refused(hub.file, SOURCE, WEIGHTS)
    assert "cannot be reached" in refused(hub.snapshot, SOURCE, ["unet/*"])
    index = {"weight_map": {"a": "weights.safetensors", "b": "weights.safetensors"}}
    (filled / "unet/weights.safetensors.index.json").write_text(json.dumps(index))
    assert f"{WEIGHTS} is not in" in refused(hub.snapshot, SOURCE)


def test_a_blob_that_is_shared_by_repositories(filled):
    """huggingface_hub may keep a blob under another hash, in a store of all repositories, and link to it."""
    blob = (filled / WEIGHTS).resolve()
    blob.symlink_to(blob.rename(blob.with_name("4" * 64)).name)
    assert hub.file(SOURCE, WEIGHTS).read_bytes() == FILES[WEIGHTS]
    blob.resolve().write_bytes(b"!")
    assert "has the hash" in refused(hub.file, SOURCE, WEIGHTS)


def test_a_cache_of_copies_is_used_and_it_is_said(filled, capsys):
    for name, content in FILES.items():
        (filled / name).unlink()
        (filled / name).write_bytes(content)
    assert hub.snapshot(SOURCE) == filled
    said = capsys.readouterr().err
    assert all(name in said for name in FILES) and len(said.splitlines()) == 1
    assert "nothing says its hash" in said


def test_the_hub_is_asked_once_where_nobody_answers(filled, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    waited = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited.append)
    assert hub.snapshot(SOURCE) == filled
    once = len(waited)
    assert hub.snapshot(SOURCE) == filled and hub.file(SOURCE, WEIGHTS) and len(waited) == once
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # of the stages


@pytest.mark.parametrize("offline", [True, False])
def test_why_the_hub_did_not_answer_holds_nothing_else(filled, monkeypatch, offline):
    """An error has the frames that it came through, and these what was loaded there: two pipelines of 4 GB each."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)

    def stage() -> weakref.ref:
        network = threading.Event()
        assert hub.snapshot(SOURCE) == hub.snapshot(SOURCE) == filled and hub.hashes.out_of_reach
        return weakref.ref(network)

    loaded = stage()
    gc.collect()
    assert loaded() is None


@pytest.mark.parametrize("answer", [(500, None), (401, "RepoNotFound"), (429, None)])
def test_what_the_hub_refuses_may_be_in_the_cache(filled, server, monkeypatch, answer):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    server.refuse = answer
    assert hub.snapshot(SOURCE) == filled


@pytest.mark.parametrize("note", ["", "[1]", "{", '{"unet/weights.safetensors": 1}'])
def test_a_damaged_note_is_none(server, tmp_path, note):
    folder = hub.snapshot(SOURCE)
    for path in (tmp_path / "cache/eraseflow").iterdir():
        if "checked" in path.name or not note.endswith("1}"):
            path.write_text(note)
    assert hub.snapshot(SOURCE) == folder


def test_notes_lie_elsewhere_where_the_cache_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/eraseflow").write_text("in the way, as no right to write is")
    folder = hub.snapshot(SOURCE)
    assert {path.suffixes[-2] for path in (tmp_path / "own").iterdir()} == {".hashes", ".checked"}
    monkeypatch.setattr(hub.hashes, "of", lambda *_: pytest.fail("hashed again"))
    assert hub.snapshot(SOURCE) == folder


def test_nowhere_to_note_anything(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub.notes, "_places", lambda *_: [Path(__file__) / "note.json"])
    assert hub.snapshot(SOURCE).is_dir()


def test_something_else_answers(server):
    server.refuse = (200, None)
    assert "answers something else than the Hub does" in refused(hub.snapshot, SOURCE)


def test_nobody_answers(server, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # it waits between its attempts
    assert "cannot be reached" in refused(hub.snapshot, SOURCE)


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert "cannot be stored or read" in refused(hub.snapshot, SOURCE)


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
