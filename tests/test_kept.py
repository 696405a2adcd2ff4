"""Cards, provenance, run folders and reports are what they were, and the core knows no more of kinds of content."""

import json

import pytest

from aigc_sdk.training import Run
from kept import HEAVY, KEPT, RUNS, cards, imported, mentions, provenances, report, run_cards

# Modules of the SDK and its plugins that are imported by `import aigc_sdk`, and to make one item: at most so many.
MODULES, MODULES_OF_ONE = 5, 46

# Words that are the name of a kind of content too.
OTHERWISE = {
    ("aigc_sdk/cli.py", "music"): "the extra that brings mido and music21",
    ("aigc_sdk/cli.py", "text"): "a key in what `aigc generate --json` prints",
    ("aigc_sdk/exhibits.py", "text"): "the first part of a MIME type",
}

ONE_OF = {"image": "digits-vae", "text": "names", "music": "folk-tunes"}


def kept(name):
    return json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))


def test_ready_made_cards_are_the_same_bytes():
    assert cards() == kept("cards")


def test_provenance_is_the_same():
    assert provenances() == kept("provenances")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_before_is_read_and_written_as_it_is(name):
    run = Run.open(KEPT / "runs" / name)
    written = json.dumps(run.record.model_dump(mode="json"), indent=1, ensure_ascii=False)
    assert written.encode() == (run.folder / "run.json").read_bytes()
    assert run_cards(name) == kept("run_cards")[name]


@pytest.mark.parametrize("name", RUNS)
def test_a_report_is_the_same(name):
    def rounded(value):
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        if isinstance(value, list):
            return [*map(rounded, value)]
        return pytest.approx(value, rel=1e-5, abs=1e-9) if isinstance(value, float) else value

    assert report(name) == rounded(kept("reports")[name])


def test_what_is_imported_becomes_no_more():
    assert len(imported("")) <= MODULES


@pytest.mark.parametrize("kind", ONE_OF)
def test_one_item_imports_what_it_needs(kind):
    found = imported(f"sdk.generate({ONE_OF[kind]!r}, seed=1)")
    assert not set(found).intersection(HEAVY) and len(found) <= MODULES_OF_ONE


def test_the_core_names_no_kind_of_content():
    assert set(mentions()) == OTHERWISE.keys()
