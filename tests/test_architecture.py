"""Imports between files go one way, those inside of functions too; what is imported for annotations does not count."""

import grimp

PACKAGES = (
    *("aigc_sdk", "aigc_image", "aigc_music", "aigc_text", "aigc_gan", "aigc_rnn", "aigc_vae"),
    *("aigc_metrics", "aigc_zoo", "aigc_onnx"),
)

# Whoever opens a file may have to try it first, and a trial opens it.
KNOWN = [
    {
        "aigc_sdk.runtime",
        "aigc_sdk.runtime.loading",
        "aigc_sdk.runtime.onnx_generator",
        "aigc_sdk.runtime.onnx_measure",
        "aigc_sdk.runtime.trial",
    }
]


def circles():
    """The sets of files of which each can be reached from each other (Tarjan 1972)."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    numbers, lowest, stack, found = {}, {}, [], []

    def visit(module):
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for other in graph.find_modules_directly_imported_by(module):
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            place = stack.index(module)
            found.append(set(stack[place:]))
            del stack[place:]

    for module in sorted(graph.modules):
        if module not in numbers:
            visit(module)
    return [each for each in found if len(each) > 1]


def test_there_is_no_other_circle_of_imports():
    assert circles() == KNOWN
