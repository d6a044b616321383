"""What a table needs beside the repository: fetched, or missed in one line, before any stage has begun."""

import os
from pathlib import Path

from eraseflow import prompt_files
from eraseflow.definitions import definition
from eraseflow.mistakes import read
from eraseflow.params import Params, of_kind


def ready(params: Params) -> None:
    """Ask the table's testbed, networks and methods for what they need, without importing those that need nothing.

    Raises: SystemExit with one line that says what to do.
    """
    table = params.table
    testbed = params.testbeds[table.testbed]
    definition("testbeds", table.testbed, "ready")(testbed, os.environ.get("ERASEFLOW_DEVICE", ""))
    concepts = [params.concepts[name] for name in table.concepts]
    judges = [name for concept in concepts for name in (concept.judge.name, *concept.scored_by)]
    if any("sha256" in prompt_files.header(Path(), concept.prompts) for concept in concepts):
        from eraseflow.prompt_sources import i2p

        i2p(testbed.i2p or "")
    for family, names in (("metrics", [testbed.features, *testbed.clip]), ("judges", [testbed.kept_judge, *judges])):
        for name in dict.fromkeys(filter(None, names)):
            if fetch := definition(family, name, "ready", None):
                fetch()
    for method in dict.fromkeys(part for row in table.methods for part in params.parts(row)):
        if fetch := definition("methods", params.module(method), "ready", None):
            model = definition("methods", params.module(method), "Settings")
            for name, concept in zip(table.concepts, concepts, strict=True):
                raw = of_kind(params.raw_settings(method, table.testbed), concept.kind)
                fetch(read(model, raw, f"methods.{method}.{table.testbed}"), name)
