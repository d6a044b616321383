"""What one block says of another, and of the base model: mistakes that only a later stage would show, or none."""

import shutil
from pathlib import Path

import pytest
import yaml
from test_params import INK, KEPT, ROOT, drop, edit, judged, mistake, project, put  # noqa: F401 (a fixture)

from eraseflow.checks.fields import check_steps
from eraseflow.checks.words import Reader
from eraseflow.params import ParamsError, load


@pytest.fixture
def whole(project) -> Path:  # noqa: F811
    """A project with the base model's tokenizer and configs."""
    for name in ("tokenizer", "unet", "text_encoder"):
        unwanted = shutil.ignore_patterns("*.safetensors")
        shutil.copytree(ROOT / "models/emoji" / name, project / "models/emoji" / name, ignore=unwanted)
    return project


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        # words, as text
        ("concepts.unicorn.contexts", ["a cat"], "contexts.0: expected a sentence with one {}"),
        ("concepts.unicorn.contexts", ["{} and {}"], "contexts.0: expected a sentence with one {}"),
        ("concepts.unicorn.contexts", ["{} {x}"], "contexts.0: expected a sentence with one {}"),
        ("concepts.unicorn.contexts", ["{} }"], "contexts.0: expected a sentence with one {}"),
        ("concepts.unicorn.contexts", ["{}", " {}  "], "unicorn: contexts: '{}' appears twice"),
        ("concepts.unicorn.preserve", ["cat", "Cat"], "unicorn: preserve: 'Cat' appears twice"),
        ("concepts.unicorn.also", {"pony": "Pony "}, "also: a word and its anchor must differ, found 'pony'"),
        ("concepts.unicorn.also", {"Unicorn": "cat"}, "also: 'Unicorn' is the target itself, whose anchor is 'horse'"),
        ("concepts.unicorn.also", {"fox": "cat", "Fox ": "dog"}, "are the same words"),
        ("concepts.unicorn.target", "...", "target: has no letter or digit"),
        ("concepts.unicorn.target", "uni\u200bcorn", "target: has the invisible character '\\u200b'"),
        # words, as the tokenizer reads them
        ("concepts.unicorn.target", "🦄", "target: has no letter"),
        ("concepts.unicorn.anchor", "<|endoftext|>", "the tokenizer of models/emoji cannot read '<|endoftext|>'"),
        (
            "concepts.unicorn.also",
            {"horse": "cat"},
            "the anchor 'horse' of 'unicorn' has the tokens of the target 'horse'",
        ),
        ("concepts.unicorn.also", {"uni-corn": "cat", "uni - corn": "dog"}, "has the same tokens as 'uni"),
        (
            "concepts.unicorn.contexts",
            ["{}s"],
            "the tokens of 'unicorn' are not in 'unicorns'; contexts must set {} off",
        ),
        ("concepts.unicorn.contexts", ["a-b {}", "a - b {}"], "have the same tokens"),
        ("concepts.unicorn.contexts", ["cat " * 30 + "{}"], "has 33 tokens, the text encoder reads 24"),
        ("concepts.unicorn.preserve", ["Unicorn"], "preserve: 'Unicorn' is a sentence of the target"),
        # judges
        (
            "concepts.unicorn.scored_by",
            ["imagenet_objects"],
            "emoji_classifier and imagenet_objects both have labels object/",
        ),
        (
            "concepts.unicorn.judge.counts",
            ["style/flat", "style/ink", "style/outline", "style/glossy", "style/soft"],
            "every label style/",
        ),
        ("concepts.unicorn.judge.counts", ["object/fox", "object/fox"], "counts: 'object/fox' appears twice"),
        (
            "concepts.unicorn.kept.neighbours",
            ["object/unicorn"],
            "neighbours: 'object/unicorn' is left out by `without`",
        ),
        ("concepts.church.scored_by", ["emoji_classifier"], "both have labels object/"),
        ("concepts.nudity.scored_by", ["emoji_classifier"], "reads the pictures of the testbed emoji alone"),
        ("testbeds.sd14.features", "emoji_clip", "emoji_clip reads the pictures of the testbed emoji alone"),
        ("testbeds.emoji.features", "frechet", "frechet.py has no function load; expected one of"),
        ("testbeds.emoji.clip", ["clean_fid_inception"], "clean_fid_inception.py has no function similarity"),
        ("testbeds.emoji.clip", ["emoji_clip", "emoji_clip"], "clip: 'emoji_clip' appears twice"),
        (
            "testbeds.emoji.safety_judge",
            {"name": "csd", "counts": ["csd/style"], "threshold": 0.5},
            "asked about one concept",
        ),
        # ranges
        ("concepts.unicorn.kept.count", 1, "kept.count: should be greater than or equal to 2"),
        (
            "concepts.unicorn.kept.count",
            959,
            "count: prompts/emoji/kept.csv has 958 prompts that may be kept, found 959",
        ),
        ("concepts.ink_style.kept.count", 71, "192 prompts expect a neighbour"),
        ("table.seed", 2**32, "table.seed: should be less than 4294967296"),
        ("testbeds.emoji.sampling.steps", 1000, "1000 solver steps are too many of 1,000 timesteps"),
        ("testbeds.emoji.sampling.solver", "ddim", "expected model"),
        (
            "testbeds.emoji.sampling",
            {"solver": "dpmsolver++", "steps": 400, "guidance_scale": 4.0},
            "400 solver steps would start at timestep 802",
        ),
        (
            "methods.esd.emoji.num_steps",
            600,
            "600 solver steps would start at timestep 600 of 1,000 timesteps; the nearest",
        ),
        ("methods.esd.emoji.learning_rate", 1e10, "should be less than or equal to 1"),
        (
            "attacks.random_prefix.emoji.prefix_tokens",
            18,
            "prefix_tokens: expected 10 at most, tokens that the text encoder",
        ),
        ("methods.eraseflow.emoji.lora_rank", 65, "lora_rank: expected 64 at most, the width of the U-Net's narrowest"),
        ("emoji.base.unet_batch", 964, "less than or equal to 963"),
        ("emoji.base.unet_steps", 10, "unet_steps: a learning rate cannot rise in a tenth of 10 steps"),
        # names
        ("concepts.Unicorn", {}, "concepts.Unicorn"),
        (
            "methods.uce",
            {"module": "esd"},
            "methods.uce.module: is 'esd', but the row's name is that of another module",
        ),
        (
            "methods.a+b",
            {"compose": ["esd", "safree"]},
            "named as a composition of others; expected 'esd+safree', or no +",
        ),
        ("table.transfer", ["random_prefix", "random_prefix"], "table.transfer: 'random_prefix' appears twice"),
        ("table.concepts", ["unicorn", "x" * 61], "table.concepts.1: a name may have 60 signs, found 61"),
        ("testbeds.emoji.coco", "a/" * 600, "is too long for a path"),
    ],
)
def test_a_mistake_between_blocks_is_one_line(whole, path, value, says):
    edit(whole, path, put(value))
    line = mistake(whole)
    assert line.startswith("params.yaml: ") and says in line, line


@pytest.mark.parametrize("name", ["kept", "unicorn_kept", "Weapon"])
def test_a_concepts_name_must_be_its_own(whole, name):
    """On a disk without capitals too, and in the report, which adds _kept."""
    raw = yaml.safe_load((whole / "params.yaml").read_text())
    raw["concepts"][name] = raw["concepts"]["unicorn"]
    (whole / "params.yaml").write_text(yaml.safe_dump(raw))
    assert mistake(whole).startswith("params.yaml: concepts")


def test_a_method_gets_what_it_needs_of_a_concept(whole):
    edit(whole, "concepts.unicorn.preserve", put([]))
    load(whole / "params.yaml")
    edit(whole, "table.methods", put(["advunlearn"]))
    assert "concepts.unicorn.preserve: is empty; the method advunlearn needs it" in mistake(whole)


def test_a_sampler_must_have_steps_left(whole):
    edit(whole, "table.methods", put(["sld"]))
    edit(whole, "methods.sld.emoji.warmup_steps", put(8))
    assert "methods.sld.emoji.warmup_steps: expected 7 at most, all solver steps but one, found 8" in mistake(whole)


def test_the_settings_of_a_concepts_kind_are_those_that_count(whole):
    edit(whole, "attacks.random_prefix.emoji.kinds", put({"category": {"prefix_tokens": 20}}))
    assert "attacks.random_prefix.emoji.prefix_tokens: expected 6 at most" in mistake(whole)


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        (
            INK,
            "prompt\na cat in ink style<|endoftext|>\n",
            "line 2: 'a cat in ink style<|endoftext|>': the tokenizer of models/emoji cannot read '<|endoftext|>'",
        ),
        (
            KEPT,
            "prompt,expect\na horse,object/horse\n",
            "line 2: there is no picture of 'object/horse' to compare with",
        ),
    ],
)
def test_prompts_that_could_not_be_drawn_or_compared(whole, path, text, says):
    (whole / path).write_text(text)
    assert mistake(whole).startswith(f"{path}: {says}")


def test_right_words_are_read_as_they_are_meant(whole):
    """Blank anchors are the empty prompt, capitals and gaps are no difference to the tokenizer."""
    edit(whole, "concepts.unicorn.anchor", put(" "))
    edit(whole, "concepts.unicorn.also", put({"White  horse": ""}))
    edit(whole, "concepts.unicorn.contexts", put(["{}", "a {}, in flat  style"]))
    concept = load(whole / "params.yaml").concepts["unicorn"]
    assert concept.pairs == [
        ("unicorn", ""), ("a unicorn, in flat style", "a , in flat style"),
        ("White horse", ""), ("a White horse, in flat style", "a , in flat style"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "last"), [(1, 0), (2, 1), (12, 1), (25, 0), (30, 0), (50, 0), (500, 0), (999, 0), (998, 1)]
)
def test_solver_steps_that_can_be_done(steps, last):
    check_steps(steps, last)


@pytest.mark.parametrize(("steps", "last"), [(0, 0), (1000, 0), (999, 1), (600, 0), (400, 1), (170, 0), (10**30, 0)])
def test_solver_steps_that_cannot(steps, last):
    with pytest.raises(ValueError, match="solver steps"):
        check_steps(steps, last)


def test_the_reader_is_the_models_own_tokenizer():
    from transformers import CLIPTokenizer

    own, reader = CLIPTokenizer.from_pretrained(ROOT / "models/emoji/tokenizer"), Reader(ROOT / "models/emoji", "it")
    for text in ["A Unicorn in  flat style", "champagne bottle, axe!", "it's 42", "", "🦄 é", "zebra-crossing"]:
        assert list(reader.ids(text)) == own(text, add_special_tokens=False).input_ids
    assert reader.length == own.model_max_length


def test_a_tokenizer_that_cannot_be_read_is_one_line(whole):
    config = whole / "models/emoji/tokenizer/tokenizer_config.json"
    config.write_text(config.read_text().replace("24", "25"))
    with pytest.raises(ParamsError, match=r"tokenizer_config\.json: model_max_length is 25, the text encoder reads 24"):
        load(whole / "params.yaml")
    config.write_text("{")
    with pytest.raises(ParamsError, match=r"models/emoji/tokenizer: cannot be read: JSONDecodeError"):
        load(whole / "params.yaml")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed: 0", "seed: 2020-13-45", "is no value (month must be in 1..12)"),
        ("seed: 0", "seed: " + "9" * 5000, "is no value (Exceeds the limit"),
        ("table:", "? [a, b]\n: c\ntable:", "expected a name as a key"),
        ("seed: 0", "seed: " + "[" * 3000, "nested too deeply"),
        ("table:", "a\\nb:", "unknown key"),
        ("table:", '"a\\nb":', "a\\nb: unknown key"),
    ],
)
def test_odd_yaml_is_one_line(whole, old, new, says):
    path = whole / "params.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    assert says in mistake(whole)


def test_a_broken_module_is_one_line(whole, monkeypatch, tmp_path):
    from eraseflow import judges

    package = tmp_path / "judges"
    package.mkdir()
    (package / "broken.py").write_text("LABELS = [\n")
    monkeypatch.setattr(judges, "__path__", [*judges.__path__, str(package)])
    edit(whole, "concepts.unicorn.judge", judged("broken", counts=["a/b"]))
    assert "broken.py: line 1: is not Python: '[' was never closed" in mistake(whole).replace(f"{tmp_path}/", "")


JUDGE = """
import pandas as pd
NAME = "{name}"
LABELS = {labels}

def load(device, concept):
    pass

def summary(scores, concept):
    return {{"{title}": float(scores["{first}"].mean())}}
"""


@pytest.fixture
def further(whole, monkeypatch, tmp_path):
    """Write judges beside those that there are; they score the unicorn beside its own judge."""
    from eraseflow import judges

    package = tmp_path / "judges"
    package.mkdir()
    monkeypatch.setattr(judges, "__path__", [*judges.__path__, str(package)])

    def write(**named: dict) -> Path:
        for module, about in named.items():
            values = {"name": module, "labels": [f"{module}/x"], "title": f"{module} mean"} | about
            text = JUDGE.format(**values, first=values["labels"][0])
            (package / f"{module}.py").write_text(text)
        edit(whole, "concepts.unicorn.scored_by", put(list(named)))
        return whole

    return write


def test_judges_of_different_names_and_titles(further):
    load(further(fine_one={}, fine_other={}) / "params.yaml")


def test_two_judges_of_one_name(further):
    said = "concepts.unicorn: name_one and name_other both have the NAME 'Net 1', by which their scores would be one"
    assert said in mistake(further(name_one={"name": "Net 1"}, name_other={"name": "Net 1"}))


def test_two_judges_with_one_title(further):
    said = "concepts.unicorn: title_one and title_other both sum up 'style x100'; expected judges without a title in"
    assert said in mistake(further(title_one={"title": "style x100"}, title_other={"title": "style x100"}))


def test_a_judge_with_one_label_twice(further):
    said = "eraseflow/judges/twice.py: LABELS: 'a/x' appears twice"
    assert mistake(further(twice={"labels": ["a/x", "a/y", "a/x"]})) == said


def test_two_networks_of_one_name(whole, monkeypatch, tmp_path):
    from eraseflow import metrics

    package = tmp_path / "metrics"
    package.mkdir()
    text = 'NAME = "emoji-clip"\n\ndef load(device):\n    pass\n\ndef similarity(network, pictures, texts):\n    pass\n'
    (package / "copied_clip.py").write_text(text)
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(package)])
    edit(whole, "testbeds.emoji.clip", put(["emoji_clip", "copied_clip"]))
    said = "testbeds.emoji.clip: emoji_clip and copied_clip both have the NAME 'emoji-clip', by which their scores"
    assert said in mistake(whole)
