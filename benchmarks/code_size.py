"""How much code the core is: lines without comments and blank lines, with and without docstrings.

    python benchmarks/code_size.py

The core is what a call of `generate` takes: aigc_sdk without the stages around it (data, training, evaluation, recipes,
reproduction), which have no bound and are counted apart, and without `testing`. The command line has a bound of its
own. That of the core is 2,500 lines for one modality, and 200 more for each that came after. The bounds are for lines
that are code: docstrings count as comments, as they do for cloc. The figures that count them as code are printed
beside.
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

from timing import Report

CORE_LINES = 2900  # 2,500, and 200 for each modality but the first
CLI_LINES = 400
NOT_COUNTED = ("training", "testing")
STAGES = ("data", "evaluation", "evaluator.py", "recipe.py", "reproduction.py")

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def count_lines(source: str) -> tuple[int, int]:
    """Return the lines of code with and without docstrings; comments and blank lines count in neither.

    A line of several statements is one, a statement on several lines is as many; a blank line inside of a string
    counts as blank.

    Example:
        >>> count_lines('x = 1  # one' + chr(10) * 2 + '# two' + chr(10) + 'def f():' + chr(10) + '    "Three."')
        (3, 2)
    """
    texts = source.splitlines()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    lines = {line for line in lines if texts[line - 1].strip()}
    return len(lines), len(lines - docstring_lines(source))


def docstring_lines(source: str) -> set[int]:
    """Return the numbers of the lines on which docstrings of modules, classes and functions are."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            found.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return found


def main() -> int:
    """Count, print the figures, and return the exit code."""
    package = Path(__file__).resolve().parents[1] / "aigc_sdk"
    sizes: dict[str, tuple[int, int]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name.partition("/")[0] not in NOT_COUNTED:
            sizes[name] = count_lines(path.read_text(encoding="utf-8"))
    print(f"{'module':40} {'lines':>7} {'without docstrings':>19}")
    for name, (lines, bare) in sizes.items():
        print(f"{name:40} {lines:7,} {bare:19,}")

    report = Report("aigc-sdk")
    parts: dict[str, list[int]] = {"core": [0, 0], "cli.py": [0, 0], "stages": [0, 0]}
    for name, size in sizes.items():
        part = "cli.py" if name == "cli.py" else "stages" if name.partition("/")[0] in STAGES else "core"
        parts[part] = [total + each for total, each in zip(parts[part], size, strict=True)]
    report.at_most("core without cli.py, lines of code", parts["core"][1], CORE_LINES)
    report.at_most("cli.py, lines of code", parts["cli.py"][1], CLI_LINES)
    report.figure("data, evaluation, recipes, reproduction, lines of code", parts["stages"][1])
    report.figure("all of these, lines of code", sum(part[1] for part in parts.values()))
    report.figure("all of these, lines of code and docstrings", sum(part[0] for part in parts.values()))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
