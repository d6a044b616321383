"""README and CONTRIBUTING say what is so: their files exist, their table is the report's, their examples work."""

import re
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import miniature
from test_rounds import make_victim

from eraseflow import rounds, verdict
from eraseflow.checks import check_names
from eraseflow.edits import Edit
from eraseflow.params import Params, load
from eraseflow.sampling import embed

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
EXAMPLES = dict(re.findall(r"^`(\S+\.py)`:\n\n```python\n(.*?)^```", PAGES["CONTRIBUTING.md"], re.S | re.M))
TO_WRITE = {*EXAMPLES, "prompts/emoji/rose.csv"}  # what the reader is told to make
MADE_BY_RUNS = (".venv", ".work", "data/cells", "data/concepts", "edit.json", "reports/full", "reports/tuning")
SUFFIXES = (".py", ".md", ".yaml", ".lock", ".csv", ".json", ".html", ".png", ".toml", ".txt", "/")


def blocks(page: str, language: str) -> list[str]:
    """The fenced code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.S | re.M)


def named(page: str) -> set[str]:
    """What looks like a file of the project among a page's inline code and links."""
    prose = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.S | re.M)
    spans = re.findall(r"`([\w./<>-]+)`", prose)
    files = {
        span for span in spans if span.endswith(SUFFIXES) or ("/" in span and (ROOT / span.split("/")[0]).exists())
    }
    return files | set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose))


def test_what_looks_like_a_file():
    assert {"params.yaml", "reports/fid_vs_attack.png", "eraseflow/emoji/", "LICENSE"} <= named("README.md")
    assert {"eraseflow/rounds.py", "README.md"} <= named("CONTRIBUTING.md")
    assert not {"object/rose", "head/label", "eraseflow"} & (named("README.md") | named("CONTRIBUTING.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_exists(page):
    """`<name>` stands for any name."""
    files = {file for file in named(page) if not file.startswith(MADE_BY_RUNS)}
    patterns = {file: re.sub(r"<\w+>", "*", file).rstrip("/") for file in files - TO_WRITE}
    assert not {file for file, pattern in patterns.items() if not any(ROOT.glob(pattern))}
    assert TO_WRITE & files


def test_readme_holds_the_reports_table():
    """Between the markers: reports/table.md without its first line, the heading."""
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "reports/table.md"], cwd=ROOT).returncode == 1:
        pytest.skip("`make repro` has made another table here, as with other params or on another kind of processor")
    heading, _, rest = (ROOT / "reports" / "table.md").read_text().partition("\n")
    [between] = re.findall(r"^<!-- table -->\n(.*?)^<!-- /table -->$", PAGES["README.md"], re.S | re.M)
    assert heading.startswith("# ") and "|" in rest
    assert between.strip() == rest.strip()


def test_readmes_concept_is_valid(tmp_path):
    block, table = blocks("README.md", "yaml")
    [prompts] = blocks("README.md", "csv")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    added = yaml.safe_load("concepts:\n" + block)["concepts"]
    raw["concepts"] |= added
    raw["table"] |= yaml.safe_load(table)
    assert set(added) <= set(raw["table"]["concepts"])
    for file in (ROOT / "prompts").rglob("*.csv"):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (tmp_path / added["rose"]["prompts"]).write_text(prompts)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    params = load(tmp_path / "params.yaml")
    assert params.concepts["rose"].target == "rose"


def example(path: str) -> types.ModuleType:
    """A module of CONTRIBUTING."""
    module = types.ModuleType(path.removesuffix(".py").replace("/", "."))
    exec(compile(EXAMPLES[path], path, "exec"), vars(module))
    return module


def settings(family: str, name: str) -> dict:
    """The settings of CONTRIBUTING's block."""
    [block] = [
        block for block in map(yaml.safe_load, blocks("CONTRIBUTING.md", "yaml")) if name in block.get(family, {})
    ]
    return block[family][name]["emoji"]


def test_contributings_method(concept, tmp_path):
    """Another target with more tokens than its anchor, and one whose anchor is nothing."""
    module = example("eraseflow/methods/token_copy.py")
    concept = concept.model_copy(update={"also": {"champagne bottle": "car", "axe": ""}})
    edited, plain = miniature(), miniature()
    edit = module.erase(edited, concept, module.Settings(**settings("methods", "token_copy")), seed=0)
    edit.save(tmp_path)
    fresh = Edit.load(tmp_path).apply(miniature())
    for pipeline in (edited, fresh):
        assert torch.equal(embed(pipeline, ["a unicorn", "champagne bottle"]), embed(plain, ["a horse", "car car"]))
        assert torch.equal(embed(pipeline, ["cat", "horse"]), embed(plain, ["cat", "horse"]))
        assert torch.equal(embed(pipeline, ["axe"]), embed(plain, [""]))
    half = miniature()
    module.erase(half, concept, module.Settings(strength=0.5), seed=0)
    tables = [one.text_encoder.get_input_embeddings().weight for one in (half, plain, edited)]
    torch.testing.assert_close(tables[0], (tables[1] + tables[2]) / 2)
    assert not torch.equal(tables[0], tables[1])


def test_contributings_rows_are_valid():
    everything = load(ROOT / "params.yaml").model_dump(exclude_unset=True)
    [block] = [block for block in map(yaml.safe_load, blocks("CONTRIBUTING.md", "yaml")) if "+" in str(block)]
    params = Params.model_validate(everything | {"methods": everything["methods"] | block["methods"]})
    check_names(params)
    [composition] = [row for row, method in block["methods"].items() if "compose" in method]
    assert [params.module(part) for part in params.parts(composition)] == ["esd", "safree"]


def test_contributings_attack(pipeline):
    module = example("eraseflow/attacks/nearest_tokens.py")
    never = make_victim(pipeline, lambda scores: np.zeros(len(scores), bool))
    found = rounds.run(never, module.attack, module.Settings(**settings("attacks", "nearest_tokens")), seed=0)
    assert found.images.eq(11).all() and found.adversarial_tokens.map(len).eq(3).all()
    assert found.adversarial_prompt.nunique() == len(found)


def test_contributings_judge(concept):
    colour = example("eraseflow/judges/colour.py")
    pictures = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    pictures[1, 0] = 255
    scores = colour.load("cpu", concept)(pictures)
    assert list(scores.columns) == colour.LABELS
    assert verdict.first_choice(scores, "colour").tolist() == ["colour/none", "colour/some"]


def test_contributings_metric():
    module = example("eraseflow/metrics/coverage.py")
    rng = np.random.default_rng(0)
    drawn, real = rng.normal(size=(40, 5)), rng.normal(size=(30, 5)) + 0.7
    near = [sorted(np.linalg.norm(real - point, axis=1))[5] for point in real]
    wanted = np.mean([np.linalg.norm(drawn - point, axis=1).min() <= r for point, r in zip(real, near, strict=True)])
    assert 0 < wanted < 1
    assert module.coverage(torch.tensor(drawn), torch.tensor(real)) == pytest.approx(wanted)
    assert module.coverage(torch.tensor(real), torch.tensor(real)) == 1
