"""What a table needs beside the repository: fetched, or missed in one line, before any stage has begun."""

import os
from collections.abc import Sequence
from pathlib import Path

from eraseflow import environment, prompt_files
from eraseflow.checks import check_with_model
from eraseflow.definitions import definition
from eraseflow.mistakes import read
from eraseflow.params import Params, of_kind
from eraseflow.project import links

CONFIGS = ["tokenizer/*", "*/config.json", "scheduler/*"]


def ready(params: Params, names: Sequence[str] | None = None) -> None:
    """Ask the table's testbed, networks and methods for what they need, without importing those that need nothing.

    names: the concepts that are about to be worked on, all of the table's if left out.

    Raises: SystemExit with one line that says what to do.
    """
    environment.check()
    links.check()
    if (device := os.environ.get("ERASEFLOW_DEVICE", "")) not in ("", "cpu"):
        environment.precision(environment.device(device))
    table = params.table
    testbed = params.testbeds[table.testbed]
    definition("testbeds", table.testbed, "ready")(testbed, device)
    if "@" in testbed.model:
        from eraseflow import hub

        check_with_model(params, Path(), hub.snapshot(testbed.model, CONFIGS))
    names = table.concepts if names is None else names
    concepts = [params.concepts[name] for name in names]
    if any("sha256" in prompt_files.header(Path(), concept.prompts) for concept in concepts):
        from eraseflow.prompt_sources import i2p

        i2p(testbed.i2p or "")
    for network in dict.fromkeys([testbed.features, *testbed.clip]):
        if fetch := definition("metrics", network, "ready", None):
            fetch()
    judges = [testbed.kept_judge, testbed.safety_judge and testbed.safety_judge.name]
    for concept in concepts:
        for judge in dict.fromkeys(filter(None, [concept.judge.name, *concept.scored_by, *judges])):
            if fetch := definition("judges", judge, "ready", None):
                fetch(concept)
    for method in dict.fromkeys(part for row in table.methods for part in params.parts(row)):
        if fetch := definition("methods", params.module(method), "ready", None):
            model = definition("methods", params.module(method), "Settings")
            for name, concept in zip(names, concepts, strict=True):
                raw = of_kind(params.raw_settings(method, table.testbed), concept.kind)
                fetch(read(model, raw, f"methods.{method}.{table.testbed}"), name, testbed.model)
