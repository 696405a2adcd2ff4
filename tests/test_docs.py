"""What the documents show works: their Python runs, their vectors are right, their links lead somewhere."""

import re
from pathlib import Path

import pytest

from aigc_sdk.seeds import item_seeds

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


# What plugins.md shows needs its plugins installed: test_plugin_docs.py.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "plugins.md"], ids=lambda page: page.name)
def test_python_in_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_link_in_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_item_seeds_in_the_contract_are_right():
    page = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    for shown, seed in (("0", 0), ("7", 7), ("2^53 - 1", 2**53 - 1)):
        assert f"| {shown} | {', '.join(map(str, item_seeds(seed, 4).tolist()))} |" in page
