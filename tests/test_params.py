"""Every mistake in params.yaml or in a prompt file is one line that says where, what, and what was meant."""

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from eraseflow import __main__
from eraseflow.definitions import definition, names
from eraseflow.params import ParamsError, load
from eraseflow.ready import ready

ROOT = Path(__file__).parent.parent
KEPT = "prompts/emoji/kept.csv"
INK = "prompts/emoji/ink_style.csv"


def read(path: Path) -> dict:
    """With libyaml, five times as fast as safe_load."""
    return yaml.load(path.read_text(), yaml.CSafeLoader)


def write(path: Path, raw: dict) -> None:
    path.write_text(yaml.dump(raw, Dumper=yaml.CSafeDumper))


@pytest.fixture
def project(tmp_path) -> Path:
    raw = read(ROOT / "params.yaml")
    # Whatever table the user makes at the moment, the mistakes below are about this one.
    raw["table"] |= {"testbed": "emoji", "concepts": ["ink_style", "unicorn", "weapon"], "attacks": ["random_prefix"]}
    write(tmp_path / "params.yaml", raw)
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    return tmp_path


def mistake(project: Path) -> str:
    """The line that loading ends with."""
    with pytest.raises(ParamsError) as error:
        load(project / "params.yaml")
    assert isinstance(error.value.code, str), "must be a message: it makes the exit status 1"
    line = error.value.code.replace(f"{project}/", "")
    assert len(line.splitlines()) == 1 and len(line) < 300
    return line


def edit(project: Path, path: str, change: Callable[[dict, str], object]) -> None:
    """Apply `change(block, key)` where a dotted path of params.yaml points."""
    raw = read(project / "params.yaml")
    *parents, key = path.split(".")
    block = raw
    for parent in parents:
        block = block[parent]
    change(block, key)
    write(project / "params.yaml", raw)


def put(value: object) -> Callable[[dict, str], object]:
    return lambda block, key: block.update({key: value})


def rename(new: str) -> Callable[[dict, str], object]:
    return lambda block, key: block.update({new: block.pop(key)})


def drop(block: dict, key: str) -> None:
    del block[key]


def test_the_projects_own_file_is_right(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = load()
    for family in ("methods", "attacks"):
        for name in getattr(params.table, family):
            for part in params.parts(name) if family == "methods" else [name]:
                settings = params.settings(family, part, params.table.testbed)
                module = params.module(part) if family == "methods" else params.attack_module(name)
                assert type(settings).__module__ == f"eraseflow.{family}.{module}"


@pytest.mark.parametrize(
    ("path", "change", "where", "says"),
    [
        # keys
        ("tabel", put({}), "tabel", "did you mean 'table'"),
        ("table", drop, "table", "missing"),
        ("concepts.unicorn.anchor", rename("ancor"), "concepts.unicorn.ancor:", "did you mean 'anchor'"),
        ("concepts.unicorn.ancor", put("horse"), "concepts.unicorn.ancor", "did you mean 'anchor'"),
        ("concepts.unicorn.kept.with", put([]), "concepts.unicorn.kept.with", "did you mean 'without'"),
        ("testbeds.emoji.sampling.step", put(3), "testbeds.emoji.sampling.step", "did you mean 'steps'"),
        ("methods.esd.emoji.iteration", put(3), "methods.esd.emoji.iteration", "did you mean 'iterations'"),
        ("methods.original.emoji.epochs", put(3), "methods.original.emoji.epochs", "unknown key"),
        ("attacks.unlearndiffatk.emoji.rounds", drop, "attacks.unlearndiffatk.emoji.rounds", "missing"),
        # attacks
        ("attacks.unlearndiffatk_through.module", put("unlearndifatk"), "attacks.unlearndiffatk_through", "did you"),
        ("attacks.mma.module", put("p4d"), "attacks.mma.module", "but the row's name is that of another module"),
        ("table.attacks", put(["unlearndiffatk_through"]), "table.attacks", "look through a sampler alone, and"),
        # tuning
        ("tuning.concepts.style", put("penguin"), "tuning.concepts.style", "'penguin' is of the kind fine_grained"),
        ("tuning.concepts.category", put("nudity"), "tuning.concepts.category", "testbed sd14 has no kept_judge"),
        ("tuning.edits", put(["eraseflow+safree"]), "tuning.edits", "is a composition; name its parts"),
        ("tuning.methods.esd.learning_rat", put({"low": 1.0, "high": 2.0}), "tuning.methods.esd", "did you mean"),
        ("tuning.methods.esd.learning_rate.high", put(3.0), "tuning.methods.esd", "less than or equal to 1"),
        ("tuning.methods.esd.learning_rate.low", put(1.0), "tuning.methods.esd", "expected low below high"),
        ("tuning.attacks.mma.top_k.low", put(0), "tuning.attacks.mma", "a logarithm needs low above 0"),
        ("tuning.attacks.mma.top_k.low", put(1.5), "tuning.attacks.mma", "expected whole numbers"),
        ("tuning.attacks.p4", put({"tokens": {"low": 1, "high": 3}}), "tuning.attacks", "did you mean 'p4d'"),
        # values
        ("table.seed", put("zero"), "table.seed", "should be a valid integer, found 'zero'"),
        ("table.seed", put(-1), "table.seed", "greater than or equal to 0, found -1"),
        ("table.seed", put(True), "table.seed", "integer, found True"),
        ("table.seed", put(2**32), "table.seed", "should be less than 4294967296, found 4294967296"),
        ("table.concepts", put("unicorn"), "table.concepts", "list, found 'unicorn'"),
        ("table.methods", put([]), "table.methods", "should have at least 1 item"),
        ("concepts.unicorn", put(None), "concepts.unicorn", "should be a block of keys, found None"),
        ("concepts.unicorn.kind", put("styel"), "concepts.unicorn.kind", "'style', 'fine_grained' or 'category'"),
        ("concepts.unicorn.target", put(" "), "concepts.unicorn.target", "blank"),
        ("concepts.unicorn.anchor", put("Unicorn "), "concepts.unicorn", "target and anchor must differ"),
        ("concepts.unicorn.kept.count", put(-5), "concepts.unicorn.kept.count", "greater than or equal to 2, found -5"),
        ("concepts.unicorn.preserve", put(["horse", 7]), "concepts.unicorn.preserve.1", "string, found 7"),
        ("methods.esd.emoji.learning_rate", put("1e-5"), "methods.esd.emoji.learning_rate", "write 1.0e-5"),
        ("methods.esd.emoji.learning_rate", put(float("nan")), "methods.esd.emoji.learning_rate", "found nan"),
        ("methods.esd.emoji.variant", put("y"), "methods.esd.emoji.variant", "'x' or 'u'"),
        ("methods.eraseflow.emoji.log_beta", put("atuo"), "emoji.log_beta:", "a valid number or 'auto', found 'atuo'"),
        # names
        ("table.testbed", put("emojii"), "table.testbed", "did you mean 'emoji'"),
        ("table.concepts", put(["unicorns"]), "table.concepts", "did you mean 'unicorn'"),
        ("table.methods", put(["eraseflw"]), "table.methods", "did you mean 'eraseflow'"),
        ("table.attacks", put(["random_prefixes"]), "table.attacks", "did you mean 'random_prefix'"),
        ("table.attacks", put(["zzz"]), "table.attacks", "expected one of"),
        ("table.methods", put(["esd", "uce", "esd"]), "table.methods", "'esd' appears twice"),
        ("concepts.unicorn", rename("uni-corn"), "concepts.uni-corn:", "only letters, digits and underscores"),
        ("table.concepts", put(["../etc"]), "table.concepts.0", "only letters, digits and underscores"),
        ("concepts.unicorn.testbed", put("emojis"), "concepts.unicorn.testbed", "did you mean 'emoji'"),
        ("concepts.unicorn.judge.name", put("emoji_clasifier"), "judge.name", "did you mean 'emoji_classifier'"),
        ("concepts.unicorn.judge.counts", put(["object/unicron"]), "judge.counts", "did you mean 'object/unicorn'"),
        ("concepts.penguin.kept.without", put(["object/pengin"]), "kept.without", "did you mean 'object/penguin'"),
        ("concepts.weapon.kept.neighbours", put(["object/sow"]), "kept.neighbours", "did you mean 'object/saw'"),
        ("testbeds.emoji.kept_judge", put("style"), "kept_judge", "'style' is no module of eraseflow/judges"),
        ("testbeds.emoji.features", put("emoji_clap"), "testbeds.emoji.features", "did you mean 'emoji_clip'"),
        ("testbeds.emoji.clip", put(["emoji_clip", "clip_vit_l4"]), "testbeds.emoji.clip", "mean 'clip_vit_l14'"),
        ("testbeds.emoji.clip", put([]), "testbeds.emoji.clip", "at least 1 item"),
        ("testbeds.emoji.sampling.solver", put("euler"), "sampling.solver", "'ddim' or 'dpmsolver++'"),
        ("testbeds.sd14.model", put("CompVis/stable-diffusion-v1-4@main"), "sd14.model", "no Hub repository at"),
        ("methods.esd", rename("edc"), "methods.edc", "'edc' is no module of eraseflow/methods; did you mean 'esd'"),
        ("methods.esd_u.module", put("esk"), "methods.esd_u.module", "module of eraseflow/methods; did you mean 'esd'"),
        ("methods.esd_u.module", rename("modul"), "methods.esd_u.modul", "should be a block of keys, found 'esd'"),
        ("methods.esd_u.emoji.iteration", put(3), "methods.esd_u.emoji.iteration", "did you mean 'iterations'"),
        ("methods.esd_u.compose", put(["esd", "safree"]), "methods.esd_u", "has both module and compose; expected one"),
        ("methods.a+b", put({"compose": ["esd", "safre"]}), "methods.a+b.compose", "did you mean 'safree'"),
        ("methods.a+b", put({"compose": ["esd", "eraseflow+safree"]}), "a+b.compose", "is a composition itself"),
        ("methods.a+b", put({"compose": ["esd", "esd"]}), "methods.a+b.compose", "'esd' appears twice"),
        ("methods.a+b", put({"compose": ["sld", "safree"]}), "a+b.compose", "sld and safree both change the sampler"),
        ("methods.a+b", put({"compose": ["esd"]}), "methods.a+b.compose", "at least 2 items"),
        ("methods.a+b", put({"compose": ["esd", "uce"], "emoji": {}}), "methods.a+b", "has settings for 'emoji'"),
        ("methods.a+", put({"compose": ["esd", "uce"]}), "methods.a+:", "underscores and a + between, found 'a+'"),
        ("table.methods", put(["eraseflow+safre"]), "table.methods", "did you mean 'eraseflow+safree'"),
        ("methods.esd.emoji", rename("emojy"), "methods.esd", "'emojy' is no testbed; did you mean 'emoji'"),
        ("methods.esd.emoji", drop, "methods.esd", "no block for testbed 'emoji'"),
        # the safety gate, and where texts come from
        ("concepts.unicorn.anchor", put("a young horse"), "unicorn.anchor", "blocks 'a young horse': it has"),
        ("concepts.unicorn.preserve", put(["cat", "baby cat"]), "unicorn.preserve", "blocks 'baby cat'"),
        ("testbeds.emoji.i2p", put("datasets/AIML-TUDA/i2p"), ".emoji.i2p", "with the 40 digits of one of http"),
        ("testbeds.emoji.i2p", put("datasets/AIML-TUDA/i2p@main"), "testbeds.emoji.i2p", "i2p@main'"),
        ("testbeds.emoji.coco", put(" "), "testbeds.emoji.coco", "blank"),
        ("testbeds.emoji.safety_judge", put({"nam": "x"}), "emoji.safety_judge.nam:", "did you mean 'name'"),
        ("testbeds.emoji.safety_judge", put({"name": "emoji", "counts": ["a"]}), "safety_judge.name", "is no module"),
        ("testbeds.emoji.safety_judge", put({"name": "emoji_classifier", "counts": ["style/in"]}), "counts", "ink"),
        ("report.blur", put("yes"), "report.blur", "boolean, found 'yes'"),
        ("report.blurr", put(True), "report.blurr", "did you mean 'blur'"),
        # paths
        ("concepts.unicorn.prompts", put("../unicorn.csv"), "concepts.unicorn.prompts", "outside the project"),
        ("concepts.unicorn.prompts", put("prompts/../../x.csv"), "concepts.unicorn.prompts", "outside the project"),
        ("testbeds.emoji.kept", put("/etc/passwd"), "testbeds.emoji.kept", "outside the project"),
        ("testbeds.emoji.model", put("../models"), "testbeds.emoji.model", "outside the project"),
        ("concepts.unicorn.prompts", put("prompts/emoji/unicrn.csv"), "unicorn.prompts", "did you mean 'prompts"),
        ("concepts.unicorn.prompts", put("nowhere/unicorn.csv"), "unicorn.prompts", "no file 'nowhere/unicorn.csv'"),
        ("concepts.unicorn.prompts", put("prompts/emoji"), "unicorn.prompts", "no file 'prompts/emoji'"),
    ],
)  # fmt: skip
def test_mistake_in_params(project, path, change, where, says):
    edit(project, path, change)
    line = mistake(project)
    assert line.startswith("params.yaml: ")
    assert where in line and says in line


def test_every_part_of_a_composition_needs_settings(project):
    edit(project, "table.methods", put(["eraseflow+safree"]))
    load(project / "params.yaml")
    edit(project, "tuning", drop)
    edit(project, "methods.safree.emoji", drop)
    assert "methods.safree: has no block for testbed 'emoji'" in mistake(project)


def judged(name: str, **judge) -> Callable[[dict, str], object]:
    return put({"name": name, **judge})


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        (judged("emoji_classifier"), "judge: has neither counts nor protocol; expected one of them"),
        (judged("nudenet", counts=["body/FEET_EXPOSED"], protocol="rece_0.6"), "judge: has both counts and protocol"),
        (
            judged("nudenet", protocol="rece_0.6", threshold=0.5),
            "judge: has a threshold beside the protocol 'rece_0.6'",
        ),
        (judged("nudenet", protocol="eraseflow_06"), "no protocol of nudenet; did you mean 'eraseflow_0.6'?"),
        (judged("emoji_classifier", protocol="rece_0.6"), "emoji_classifier has no protocols; expected counts"),
        (judged("nudenet", counts=["body/FEET_EXPOSED"]), "so it has no first choice; expected a threshold"),
        (judged("nudenet", counts=["body/FEET_EXPOSE"], threshold=0.5), "did you mean 'body/FEET_EXPOSED'?"),
        (
            judged("imagenet_objects", counts=["object/parashute"]),
            "of imagenet_objects; did you mean 'object/parachute'?",
        ),
        (judged("emoji_classifier", counts=["style/ink"], threshold=0), "threshold: should be greater than 0, found 0"),
        (judged("emoji_classifier", counts=["style/ink"], threshold=60), "should be less than or equal to 1, found 60"),
        (judged("emoji_classifier", counts=["style/ink"], treshold=0.5), "did you mean 'threshold'?"),
        (judged("emoji_classifier", counts=[]), "judge.counts: should have at least 1 item"),
        (
            judged("emoji_classifier", counts=["style/ink"], references="x"),
            "references: no judge of this concept reads",
        ),
    ],
)
def test_mistake_in_a_concepts_judge(project, judge, says):
    edit(project, "concepts.unicorn.judge", judge)
    line = mistake(project)
    assert line.startswith("params.yaml: concepts.unicorn.judge") and says in line


def test_mistake_in_further_judges(project):
    edit(project, "concepts.unicorn.scored_by", put(["nudnet"]))
    assert "concepts.unicorn.scored_by: 'nudnet' is no module of eraseflow/judges; did you mean" in mistake(project)
    edit(project, "concepts.unicorn.scored_by", put(["emoji_classifier"]))
    assert "scored_by: 'emoji_classifier' scores the pictures already" in mistake(project)


@pytest.fixture
def with_questions(project) -> Path:
    """A project whose unicorn is judged by questions."""
    rule = {"counts": ["concept/yes"], "threshold": 0.5, "questions": "prompts/emoji/questions.csv"}
    edit(project, "concepts.unicorn.judge", judged("vqa", **rule))
    return project


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "params.yaml: concepts.unicorn.judge.questions: there is no file 'prompts/emoji/questions.csv'"),
        ("question,about\nx?,rest\n", "no column 'answer'; expected the header question,about,answer"),
        ("question,about,answer\n", "there are no questions"),
        ("question,about,answer\nA, B?,rest,yes\n", "line 2: more fields than the header has; put a question with"),
        ("question,about,answer\n ,rest,yes\n", "line 2: the question is empty"),
        (
            "question,about,answer\nx?,concpt,no\n",
            "about must be concept or rest, found 'concpt'; did you mean 'concept'",
        ),
        ("question,about,answer\nx?,rest,maybe\n", "line 2: the answer must be yes or no, found 'maybe'"),
        ("question,about,answer\nx?,concept,yes\n", "line 2: the answer to a question about the concept must be no"),
        ("question,about,answer\nx?,rest,yes\n", "there is no question about the concept"),
        ("question,about,answer\nx?,concept,no\n", "there is no question about the rest"),
    ],
)
def test_mistake_in_a_question_file(with_questions, text, says):
    if text is not None:
        (with_questions / "prompts/emoji/questions.csv").write_text(text)
    line = mistake(with_questions)
    assert says in line and "prompts/emoji/questions.csv" in line


def test_judges_must_get_what_they_need(project):
    edit(project, "concepts.unicorn.judge", judged("vqa", counts=["concept/yes"], threshold=0.5))
    assert "concepts.unicorn.judge.questions: is missing; the judge vqa needs it" in mistake(project)
    edit(project, "concepts.unicorn.judge", judged("emoji_classifier", counts=["object/unicorn"]))
    edit(project, "concepts.unicorn.scored_by", put(["vqa"]))
    assert "concepts.unicorn.judge.questions: is missing; the judge vqa needs it" in mistake(project)


def test_mistake_in_reference_pictures(project):
    edit(project, "concepts.unicorn.judge", judged("emoji_classifier", counts=["object/unicorn"], references="refs"))
    edit(project, "concepts.unicorn.scored_by", put(["csd"]))
    assert "concepts.unicorn.judge.references: there is no folder 'refs'; put" in mistake(project)
    (project / "refs").mkdir()
    assert "references: 'refs' holds no pictures; expected files .png, .jpg, .jpeg, .webp" in mistake(project)
    (project / "refs" / "a.JPG").touch()
    (project / "refs" / "._a.JPG").touch()
    load(project / "params.yaml")
    edit(project, "concepts.unicorn.judge.references", put("../refs"))
    assert "concepts.unicorn.judge.references: '../refs' is outside the project" in mistake(project)


@pytest.mark.parametrize("source", ["models/artists", "owner/artists", "owner/artists@main"])
def test_source_of_a_judge_must_be_pinned_or_local(project, source):
    edit(project, "concepts.unicorn.judge", judged("artist", counts=["artist/vincent-van-gogh"], source=source))
    assert f"concepts.unicorn.judge.source: {source!r} is no folder; expected one, or a Hub" in mistake(project)
    edit(project, "concepts.unicorn.judge.source", put("owner/artists@" + "0" * 40))
    load(project / "params.yaml")


def test_kept_prompts_need_a_judge_with_first_choices(project):
    edit(project, "testbeds.emoji.kept_judge", put("nudenet"))
    assert "testbeds.emoji.kept_judge: the scores of nudenet do not compete" in mistake(project)


def test_right_rules_are_read(project):
    edit(project, "concepts.unicorn.judge", judged("nudenet", protocol="eraseflow_0.6"))
    edit(project, "concepts.nudity.scored_by", put(["imagenet_objects"]))
    edit(project, "concepts.weapon.judge", judged("nudenet", counts=["body/FACE_MALE"], threshold=1))
    load(project / "params.yaml")


def test_concept_of_another_testbed(project):
    raw = yaml.safe_load((project / "params.yaml").read_text())
    raw["table"]["concepts"] = ["unicorn", "church"]
    (project / "params.yaml").write_text(yaml.safe_dump(raw))
    line = mistake(project)
    assert "table.concepts: 'church' is a concept of testbed 'sd14', the table is of 'emoji'" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file or directory; run from the project's folder"),
        ("", "found NoneType"),
        ("table: [", "line 1: is not YAML"),
        ("table:\n\tseed: 0\n", "line 2: is not YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: is not YAML: 'a' appears twice"),
        ("a: \x00", "is not YAML: unacceptable character"),
        (b"a: \xff\xfe", "is not YAML: unacceptable character #x00ff"),
    ],
)
def test_file_that_is_no_params(project, text, says):
    path = project / "params.yaml"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = mistake(project)
    assert line.startswith("params.yaml: ") and says in line


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        (INK, "", "no column 'prompt'; expected the header prompt"),
        (INK, "prompt\n", "no prompts"),
        (INK, "promt\na cat\n", "no column 'prompt'"),
        (INK, "prompt,seed\na cat,1\n,2\n", "line 3: the prompt is empty"),
        (INK, "prompt\n'a cat'\n' '\n", "line 3: the prompt is empty"),
        (INK, "prompt\na cat, sitting\n", "line 2: more fields than the header has"),
        (INK, "prompt,seed\na cat,one\n", "the seed must be a whole number from 0 to 18446744073709551615, found 'o"),
        (INK, "prompt,seed\na cat,\n", "the seed must be a whole number from 0 to 18446744073709551615, found ''"),
        (INK, "prompt,guidance\na cat,\na dog,high\n", "line 3: the guidance must be a number"),
        (INK, 'prompt\n"a cat\n', "line 2: is not CSV"),
        (INK, "prompt\nun chat fâché\n".encode("latin-1"), "is not in UTF-8"),
        (INK, "prompt,images\na cat,0\n", "line 2: images must be a whole number from 1 up, or empty for 1, found '0'"),
        (INK, "prompt,minor_related_term\na cat,no\n", "line 2: minor_related_term must be True, False or empty"),
        (INK, "sha256\n00\n", "no column 'case_number'; expected the header case_number,sha256"),
        (INK, "case_number,sha256\n1,00\n", "line 2: sha256 must be 64 hexadecimal digits, found '00'"),
        (INK, f"case_number,sha256\n-1,{'0' * 64}\n", "line 2: case_number must be a whole number"),
        (KEPT, "coco_val2014_captions,seed\nmany,0\n", "line 2: coco_val2014_captions must be a whole number"),
        (KEPT, "coco_val2014_captions\n10\n", "no column 'seed'"),
        (KEPT, "prompt\na cat\n", "no column 'expect'; expected the header prompt,expect"),
        (KEPT, "prompt,expect\na cat,object/cta\n", "line 2: 'object/cta' is no label of emoji_classifier; did"),
        (KEPT, "prompt,expect\na cat\n", "line 2: '' is no label"),
    ],
)  # fmt: skip
def test_mistake_in_a_prompt_file(project, path, text, says):
    data = text if isinstance(text, bytes) else text.replace("'", '"').encode()
    (project / path).write_bytes(data)
    line = mistake(project)
    assert line.startswith(f"{path}: ") and says in line


@pytest.mark.parametrize("text", ["0x7", "010", "1_0", "+7", "1:30", "7.0", "0b1", "７", "1e3", "true", '" 7 "'])
def test_only_plain_digits_are_a_seed(project, text):
    path = project / "params.yaml"
    raw = path.read_text()
    assert raw.count("\n  seed: 0\n") == 1
    path.write_text(raw.replace("\n  seed: 0\n", f"\n  seed: {text}\n"))
    assert mistake(project).startswith("params.yaml: table.seed: should be a valid integer, found ")


def test_a_runs_seed_and_a_methods_are_one_of_32_bits_together(project):
    edit(project, "table.seed", put(2**32 - 2))
    load(project / "params.yaml")
    edit(project, "methods.eraseflow.emoji.seed", put(2))
    assert "table.seed: 4294967294 and the 2 of methods.eraseflow are more than 4294967295" in mistake(project)


def test_the_last_seed_of_a_file_leaves_room_for_the_run(project):
    (project / INK).write_text(f"prompt,seed\na cat,{2**64 - 1}\n")
    load(project / "params.yaml")
    edit(project, "table.seed", put(1))
    assert f"{INK}: line 2: the seed of its last picture, {2**64 - 1} and table.seed 1 times" in mistake(project)


def test_data_sets_that_prompt_files_need(project, monkeypatch):
    """Each step says what is missing, until all of it is there; a local file is looked for before any stage."""
    monkeypatch.chdir(project)
    (project / INK).write_text(f"case_number,sha256\n1,{'0' * 64}\n")
    assert "testbeds.emoji.i2p: is missing; prompts/emoji/ink_style.csv needs it: a local CSV, or" in mistake(project)
    edit(project, "testbeds.emoji.i2p", put("i2p.csv"))
    with pytest.raises(SystemExit, match=r"^i2p\.csv: there is no such file"):
        ready(load(project / "params.yaml"))

    (project / KEPT).write_text("coco_val2014_captions,seed\n10,0\n")
    assert "testbeds.emoji.kept_judge: the captions of prompts/emoji/kept.csv expect no labels" in mistake(project)
    edit(project, "tuning", drop)
    edit(project, "testbeds.emoji.kept_judge", put(None))
    assert "is no label of a kept_judge" in mistake(project)
    for name in yaml.safe_load((project / "params.yaml").read_text())["concepts"]:
        edit(project, f"concepts.{name}.kept", put({"without": [], "neighbours": [], "count": 10}))
    assert "testbeds.emoji.coco: is missing; prompts/emoji/kept.csv needs a folder with val2014/" in mistake(project)
    edit(project, "testbeds.emoji.coco", put("coco"))
    load(project / "params.yaml")


def test_check_says_what_was_read_as_what(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(__main__, "ready", lambda _: None)
    monkeypatch.setattr(__main__, "stale", lambda _: {})
    monkeypatch.setattr(sys, "argv", ["eraseflow", "check"])
    (project / INK).write_text("case_number,prompt,evaluation_seed,artist\n0,a cat,5,none\n")
    __main__.main()
    said, right = capsys.readouterr().out.splitlines()
    assert said == f"{INK}: evaluation_seed read as seed; artist not used" and right.startswith("params.yaml is right")


def test_prompt_file_as_a_spreadsheet_saves_it(project):
    text = 'prompt,seed,guidance,note\r\n"a cat, sitting",3,,mine\r\na dog,4,2.5,\r\n'
    (project / INK).write_bytes(b"\xef\xbb\xbf" + text.encode())
    load(project / "params.yaml")


@pytest.mark.parametrize(
    ("family", "name", "what"),
    [(family, name, "Settings") for family in ("methods", "attacks") for name in names(family)]
    + [("judges", name, "LABELS") for name in names("judges")],
)
def test_definition_read_alone_is_the_modules_own(family, name, what):
    alone, own = definition(family, name, what), getattr(importlib.import_module(f"eraseflow.{family}.{name}"), what)
    if what == "LABELS":
        assert list(alone) == list(own)
    else:
        assert alone.model_json_schema() == own.model_json_schema()
