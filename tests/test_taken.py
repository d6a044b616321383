"""What stages have taken, and what like ones may take."""

import pytest
import yaml

from eraseflow.run import taken

KNOWN = {
    "train@a-uce": (1.0, 10.0),
    "train@b-uce": (3.0, 30.0),
    "train@a-esd": (50.0, 5.0),
    "attack@mma-a-uce": (7.0, 1.0),
    "attack@cce-b-uce": (9.0, 1.0),
    "report": (8.0, 2.0),
}


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        ("train@a-uce", (1.0, 10.0)),
        ("train@c-uce", (2.0, 30.0)),  # the method says more than the concept
        ("train@a-mace", (25.5, 10.0)),  # of a new method the concept's
        ("train@c-mace", (3.0, 30.0)),  # nothing in common: all trainings
        ("attack@mma-b-esd", (7.0, 1.0)),  # the attack says more than concept and method
        ("report", (8.0, 2.0)),
        ("score@a-uce", None),
    ],
)
def test_a_stage_takes_what_the_likest_of_its_kind_took(stage, found):
    assert taken.like(stage, KNOWN) == found


def test_this_folders_runs_go_before_what_is_published(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / taken.PUBLISHED).write_text("stage,seconds,memory_bytes\ntrain@a-uce,5.0,7\nreport,1.5,0\n")
    taken.keep({"report": (9.0, 3.0)}, tmp_path)
    assert taken.known(tmp_path) == {"train@a-uce": (5.0, 7.0), "report": (9.0, 3.0)}
    taken.publish(["report", "train@a-uce", "train@new-uce"], tmp_path)
    published = (tmp_path / taken.PUBLISHED).read_text()
    assert published == "stage,seconds,memory_bytes\nreport,9.0,3\ntrain@a-uce,5.0,7\n"


def test_stages_of_another_testbed_are_no_likes(tmp_path):
    concepts = {"a": {"testbed": "emoji"}, "b": {"testbed": "sd14"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"table": {"testbed": "sd14"}, "concepts": concepts}))
    taken.keep({**KNOWN, "reference@emoji": (1.0, 1.0), "reference@sd14": (2.0, 1.0)}, tmp_path)
    assert set(taken.known(tmp_path)) == {"train@b-uce", "attack@cce-b-uce", "report", "reference@sd14"}


def test_a_broken_record_is_none(tmp_path):
    (tmp_path / ".work").mkdir()
    (tmp_path / taken.HERE).write_text("{")
    assert taken.known(tmp_path) == {}
