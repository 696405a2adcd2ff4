"""The same file in JavaScript: natively under Node.js, and as the WebAssembly that browsers run."""

import numpy as np
import pytest

from aigc_sdk.generator import output_names, start_state
from aigc_sdk.runtime import OnnxGenerator
from aigc_sdk.testing import example_feeds
from javascript import ensure_installed, run_in_javascript

N = 200


@pytest.fixture(scope="session")
def javascript():
    ensure_installed()


@pytest.mark.slow
@pytest.mark.parametrize("run", ["trained", "trained_gan"])
@pytest.mark.parametrize("task", ["generate", "interpolate"])
@pytest.mark.parametrize(("runtime", "share"), [("node", 0.0), ("web", 1e-4)])
def test_trained_file_makes_the_same_in_javascript(run, javascript, task, runtime, share, request):
    path = request.getfixturevalue(run).models[task]
    exported = OnnxGenerator.open(path)
    seeds, controls = example_feeds(exported.card.controls, N, 1)
    got = run_in_javascript(runtime, path, {"seed": seeds, **controls})["content"]
    gap = np.abs(got.astype(int) - exported.run(seeds, controls)["content"])
    assert gap.max() <= 1
    expected = share * gap.size
    assert (gap > 0).sum() <= expected + 3 * expected**0.5  # of so few, more may differ by chance


@pytest.mark.slow
@pytest.mark.parametrize("run", ["trained_rnn", "trained_music"])
@pytest.mark.parametrize("task", ["generate", "stream"])
@pytest.mark.parametrize("runtime", ["node", "web"])
def test_trained_texts_and_pieces_are_the_same_in_javascript(run, javascript, task, runtime, request):
    path = request.getfixturevalue(run).models[task]
    exported = OnnxGenerator.open(path)
    seeds, controls = example_feeds(exported.card.controls, N, 1)
    got = run_in_javascript(runtime, path, {"seed": seeds, **controls, **start_state(exported.card, N)})
    wanted = exported.run(seeds, controls)
    assert got.keys() == wanted.keys()
    for name in output_names(exported.card):
        assert np.array_equal(got[name], wanted[name])


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["node", "web"])
def test_input_left_out_fails_in_javascript(trained, javascript, runtime):
    feeds = {"seed": np.arange(3), "label": np.full(3, -1)}
    with pytest.raises(RuntimeError, match="temperature"):
        run_in_javascript(runtime, trained.models["generate"], feeds)
