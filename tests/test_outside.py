"""Files that DVC does not watch: their content decides which cells run again, and nothing but their content."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from eraseflow import params, rows
from eraseflow.cells import concept as cell
from eraseflow.outside import content, notes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CONCEPTS = ["nudity", "van_gogh", "caravaggio"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def settled(monkeypatch):
    """Files count as unchanged for long, so that their hashes are remembered at once."""
    monkeypatch.setattr(content, "SETTLED", -1.0)


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The files that are read, in order."""
    found, real = [], content._sha256
    monkeypatch.setattr(content, "_sha256", lambda file: found.append(file) or real(file))
    return found


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_file_is_read_once_until_it_changes(folder, settled, read):
    file = write(folder / "a.safetensors", "one")
    first = content.digests([file])
    assert content.digests([file]) == first and read == [file]
    os.utime(file)
    assert content.digests([file]) == first and len(read) == 2, "touched: read again, and the same"
    times = os.stat(file).st_atime_ns, os.stat(file).st_mtime_ns
    file.write_text("two")
    os.utime(file, ns=times)
    assert content.digests([file]) != first, "size, time and inode are the old one's, as when an archive is unpacked"


def test_a_hash_is_not_remembered_of_a_file_that_may_still_change(folder, read):
    file = write(folder / "a", "one")
    content.digests([file])
    content.digests([file])
    assert len(read) == 2 and not content.KNOWN.exists()


def test_a_broken_memory_of_hashes_is_made_anew(folder, settled, read):
    file = write(folder / "a", "one")
    write(content.KNOWN, "{")
    assert content.digests([file]) == content.digests([file]) and len(read) == 1


def test_the_files_of_a_folder_are_those_that_are_read(folder):
    elsewhere = write(folder / "elsewhere" / "c.json", "c").parent
    for name in ("a.json", "in/b.json", "in/b.txt", ".DS_Store", "._a.json", ".git/config.json", "in/.hidden.json"):
        write(folder / "place" / name, name)
    (folder / "place" / "link").symlink_to(elsewhere)
    (folder / "place" / "in" / "up").symlink_to(folder / "place")
    found = [str(file.relative_to(folder / "place")) for file in content.files(folder / "place", ["*.json"])]
    assert found == ["a.json", "in/b.json", "link/c.json"]
    assert content.files(folder / "nowhere") == [folder / "nowhere"]
    assert content.digests([folder / "nowhere"]) == {str(folder / "nowhere"): None}


def test_a_file_that_vanishes_is_one_line(folder, monkeypatch):
    file = write(folder / "a", "one")

    def vanish(file):
        file.unlink()
        raise FileNotFoundError(2, "No such file or directory", str(file))

    monkeypatch.setattr(content, "_sha256", vanish)
    with pytest.raises(SystemExit, match=r"a: cannot be read: No such file or directory$"):
        content.digests([file])


def test_what_is_on_the_hub_at_a_commit_is_no_file_here(folder):
    commit = "0" * 40
    for source in (f"owner/name@{commit}", f"owner/name@{commit}/unet.safetensors", f"datasets/owner/name@{commit}"):
        assert content.local(source) == []
    assert content.local("owner/name") == [Path("owner/name")]
    write(folder / f"owner/name@{commit}" / "a", "")
    assert content.local(f"owner/name@{commit}") == [Path(f"owner/name@{commit}")], "hub.py takes it, too"


@pytest.fixture
def everything(folder) -> params.Params:
    """A table of sd14 whose weights, paintings, classifier, COCO, I2P and base model lie in folders, all noted."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    shutil.copytree(ROOT / "prompts", folder / "prompts")
    write(folder / "prompts/sd14/kept.csv", "coco_val2014_captions,seed\n2,0\n")
    raw["table"] |= {"testbed": "sd14", "concepts": CONCEPTS, "methods": ["original", "uce", "pretrained"]}
    raw["testbeds"]["sd14"] |= {"model": str(folder / "model"), "coco": "data/coco", "i2p": "data/i2p.csv"}
    raw["methods"]["pretrained"]["sd14"]["sources"] = {name: str(folder / "weights" / name) for name in CONCEPTS}
    raw["concepts"]["van_gogh"]["judge"]["source"] = "data/artist"
    for name in CONCEPTS:
        raw["concepts"][name]["kept"]["count"] = 2
    for family in ("concepts", "methods", "attacks"):  # the others take time alone
        raw[family] = {name: raw[family][name] for name in raw["table"][family]}
    del raw["tuning"], raw["claims"]  # whose names are not all among these
    write(folder / "params.yaml", yaml.safe_dump(raw))
    for name in CONCEPTS:
        write(folder / "weights" / name / "unet" / "diffusion_pytorch_model.safetensors", "one")
        write(folder / "data" / "references" / name / "1.jpg", "one")
    for name in ("config.json", "pytorch_model.bin"):
        write(folder / "data" / "artist" / name, "one")
    for name in ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "unet/config.json"):
        write(folder / "model" / name, "one")
    write(folder / "data/i2p.csv", "prompt\na lamp\n")
    pictures = [{"id": n, "file_name": f"{n}.jpg"} for n in range(4)]
    captions = [{"id": n, "image_id": n, "caption": f"A bowl of {n} lemons."} for n in range(4)]
    write(folder / "data/coco/captions_val2014.json", json.dumps({"images": pictures, "annotations": captions}))
    for n in range(4):
        write(folder / f"data/coco/val2014/{n}.jpg", "one")
    loaded = params.load()
    note(loaded)
    return loaded


def note(everything: params.Params) -> None:
    """Write the notes of all stages."""
    rows.write(everything, notes.METHODS)
    testbed = everything.testbeds["sd14"]
    found: dict[Path, object] = {
        notes.REFERENCE / "sd14" / "networks.json": {"outside": notes.networks(testbed)},
        notes.REFERENCE / "sd14" / "pictures.json": {"outside": notes.pictures("sd14", testbed)},
    }
    for name in CONCEPTS:
        place, entry = notes.CONCEPTS / name, everything.concepts[name]
        found[place / "judges.json"] = cell.judges(entry, testbed)
        found[place / "model.json"] = {"outside": notes.model("sd14", testbed)}
        found[place / "texts.json"] = {"outside": notes.texts(entry, testbed)}
    for file, content_of in found.items():
        write(file, json.dumps(content_of))


def changed(everything: params.Params) -> tuple[set[str], set[str]]:
    """The stages whose notes are no longer right, and the notes that differ once they are made anew."""
    stale = set(notes.stale(everything))
    before = {file: file.read_bytes() for file in Path("data").rglob("*.json") if "coco" not in file.parts}
    note(everything)
    return stale, {str(file.relative_to("data")) for file in before if file.read_bytes() != before[file]}


def concepts(*notes_of: str) -> set[str]:
    return {f"concepts/{name}/{one}.json" for name in CONCEPTS for one in notes_of}


VAN_GOGH = "methods/sd14/pretrained/van_gogh.json"
ALL = {f"concept@{name}" for name in CONCEPTS}


@pytest.mark.parametrize(
    ("file", "stages", "differ"),
    [
        ("weights/van_gogh/unet/diffusion_pytorch_model.safetensors", {"methods"}, {VAN_GOGH}),
        ("weights/van_gogh/new.safetensors", {"methods"}, {VAN_GOGH}),
        ("data/references/caravaggio/1.jpg", {"concept@caravaggio"}, {"concepts/caravaggio/judges.json"}),
        ("data/references/caravaggio/2.PNG", {"concept@caravaggio"}, {"concepts/caravaggio/judges.json"}),
        ("data/artist/pytorch_model.bin", {"concept@van_gogh"}, {"concepts/van_gogh/judges.json"}),
        ("model/unet/diffusion_pytorch_model.safetensors", ALL, concepts("model")),
        ("data/i2p.csv", {"concept@nudity"}, {"concepts/nudity/texts.json"}),
        ("data/coco/captions_val2014.json", ALL, concepts("texts")),
    ],
)  # fmt: skip
def test_a_file_of_other_content_changes_what_was_made_of_it_and_nothing_else(everything, file, stages, differ):
    path = Path(file)
    old = path.read_text() if path.exists() else ""
    write(path, old.replace(" ", "  ", 1) if path.suffix in (".csv", ".json") else "two")
    assert changed(everything) == (stages, differ)


def test_a_real_picture_counts_if_it_is_compared_with(everything):
    compared = {Path(name).name for name in notes.pictures("sd14", everything.testbeds["sd14"])}
    assert len(compared) == 2
    for n in range(4):
        write(Path(f"data/coco/val2014/{n}.jpg"), "two")
        expected = ({"reference@sd14"}, {"reference/sd14/pictures.json"}) if f"{n}.jpg" in compared else (set(), set())
        assert changed(everything) == expected


@pytest.mark.parametrize(
    "file",
    [
        "weights/van_gogh/.DS_Store", "weights/van_gogh/README.md",
        "weights/van_gogh/unet/._diffusion_pytorch_model.safetensors", "data/references/caravaggio/._1.jpg",
        "data/references/caravaggio/sources.txt", "data/references/caravaggio/rejected/1.jpg", "data/artist/README.md",
        "model/README.md", "model/safety_checker/model.safetensors",
    ],
)  # fmt: skip
def test_a_file_that_nobody_reads_changes_nothing(everything, file):
    write(Path(file), "new")
    assert changed(everything) == (set(), set())


def test_touched_copied_and_linked_files_change_nothing(everything, settled):
    for file in [*Path("weights").rglob("*.*"), *Path("data/references").rglob("*.*"), *Path("model").rglob("*.*")]:
        os.utime(file)
    shutil.move("weights/van_gogh", "elsewhere")
    Path("weights/van_gogh").symlink_to(Path("elsewhere").absolute())
    shutil.copytree("model", "copied")
    shutil.rmtree("model")
    shutil.move("copied", "model")
    assert changed(everything) == (set(), set())


def test_a_file_that_is_gone_is_a_change(everything):
    shutil.rmtree("weights/van_gogh")
    assert changed(everything) == ({"methods"}, {VAN_GOGH})


def test_notes_that_are_not_there_are_made_again_where_something_lies_outside(everything):
    shutil.rmtree(notes.METHODS)
    shutil.rmtree(notes.CONCEPTS / "nudity")
    assert set(notes.stale(everything)) == {"methods", "concept@nudity"}, "DVC would fetch old ones from its cache"
    assert notes.stale(params.load(ROOT / "params.yaml")) == {}, "nothing of the default table does"


def test_a_base_model_in_its_own_folder_is_left_to_dvc_but_for_links_out_of_it(everything):
    shutil.move("model", "models/sd14")
    testbed = everything.testbeds["sd14"].model_copy(update={"model": "models/sd14"})
    assert notes.model("sd14", testbed) == {}
    shutil.move("models/sd14/unet", "unet")
    Path("models/sd14/unet").symlink_to(Path("unet").absolute())  # DVC does not go into such a folder
    assert {Path(name).name for name in notes.model("sd14", testbed)} == {
        "config.json", "diffusion_pytorch_model.safetensors",
    }  # fmt: skip


def test_a_network_of_a_score_in_a_local_folder_is_noted(everything, monkeypatch):
    real = notes.definition
    weights = write(Path("clip/open_clip_model.safetensors"), "one")

    def elsewhere(family, module, name, *default):
        return "clip" if (family, name) == ("metrics", "SOURCE") else real(family, module, name, *default)

    monkeypatch.setattr(notes, "definition", elsewhere)
    assert notes.networks(everything.testbeds["sd14"]).keys() == {str(weights)}
    assert set(notes.stale(everything)) == {"reference@sd14"}


def test_a_cell_stops_in_one_line_where_a_file_is_another_than_noted(everything):
    of_all = [notes.of_model, notes.of_judges, notes.of_texts]
    notes.as_noted(*(of(everything, "van_gogh") for of in of_all), notes.of_row(everything, "van_gogh", "pretrained"))
    file = write(Path("weights/van_gogh/unet/diffusion_pytorch_model.safetensors"), "two")
    notes.as_noted(notes.of_row(everything, "nudity", "pretrained"), notes.of_row(everything, "van_gogh", "uce"))
    with pytest.raises(SystemExit) as failure:
        notes.as_noted(notes.of_row(everything, "van_gogh", "pretrained"))
    line = f"{file}: is not what data/{VAN_GOGH} has noted; `python -m eraseflow repro`"
    assert line in str(failure.value) and len(str(failure.value).splitlines()) == 1


def test_another_concepts_source_leaves_a_row_as_it_is(everything):
    row = everything.methods["pretrained"]
    sources = row.on["sd14"]["sources"] | {"nudity": "elsewhere.safetensors"}
    moved = params.Method(sd14=row.on["sd14"] | {"sources": sources})
    before = Path("data/methods/sd14/pretrained/van_gogh.json").read_bytes()
    rows.write(everything.model_copy(update={"methods": everything.methods | {"pretrained": moved}}), notes.METHODS)
    assert Path("data/methods/sd14/pretrained/van_gogh.json").read_bytes() == before
    assert "elsewhere.safetensors" in Path("data/methods/sd14/pretrained/nudity.json").read_text()


def test_the_style_judge_reads_the_pictures_that_are_noted(everything):
    from eraseflow.judges import csd

    place = Path("data/references/caravaggio")
    for name in ("2.png", "1.jpg", "._1.jpg", "in/3.png"):
        (place / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(place / name)
    assert csd.outside(everything.concepts["caravaggio"]) == [place / "1.jpg", place / "2.png"]
    assert len(csd.references(place)) == 2


# What decides no number: it checks, finds, fetches and reports. `transfer` takes from the attack's cell how it judges.
WITHOUT_NUMBERS = {"cells", "csv_files", "definitions", "environment", "finite", "inputs", "prompt_files", "ready"}
WITHOUT_NUMBERS |= {"project", "project.files", "project.links", "project.locks", "shards", "stage", "memory", "server"}
WITHOUT_NUMBERS |= {"judges", "metrics"}  # their contracts
WITHOUT_NUMBERS |= {"allocator", "timings", "run", "run.peak"}  # which no result has
NOT_USED = {
    "train": {"rows"},
    "sample": {"prompt_sources", "safety"},
    "attack": {"prompt_sources"},
    "transfer": {"naming", "passes", "prompt_sources", "prompts", "rounds"},
}


CELLS = ["concept", "reference", "methods", "train", "sample", "attack", "score", "transfer"]


@pytest.mark.parametrize("stage", ["cards", *CELLS, "report"])
def test_a_stage_depends_on_the_code_that_it_imports(stage):
    """Modules that are found by name, such as a judge, come by judges.json and the like."""
    raw = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    found: set[str] = set()
    waiting = list(rows._imported((ROOT / "stages" / f"{stage}.py").read_bytes()))
    while waiting:
        module = waiting.pop()
        if module not in found and not rows._reads(module) and (source := rows._source(module)):
            found.add(module)
            waiting += rows._imported(source)
    watched = [Path(dep).with_suffix("") for dep in raw["deps"]]
    paths = {module: Path(*module.split(".")) for module in found}
    lacking = {name for name, path in paths.items() if not any(path.is_relative_to(dep) for dep in watched)}
    allowed = WITHOUT_NUMBERS | NOT_USED.get(stage, set())
    assert {name.removeprefix("eraseflow.") for name in lacking} <= allowed
