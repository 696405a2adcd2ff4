"""The RNN family: its networks, how a character is chosen, the loop, and what a training makes."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import aigc_sdk as sdk
from aigc_rnn.config import RNNConfig
from aigc_rnn.family import RNN
from aigc_rnn.networks import RecurrentNetwork
from aigc_rnn.sampler import BEGIN, END, SPECIAL, Choosing, Generate, Score, StreamOn, choose
from aigc_rnn.tokens import tokens_of
from aigc_sdk import cli
from aigc_sdk.codes import decode, encode
from aigc_sdk.errors import InvalidData, InvalidRequest, NotReproduced, UnknownName
from aigc_sdk.runtime.safety import may_fold
from aigc_sdk.seeds import threefry
from aigc_sdk.training.random import Stream
from aigc_sdk.training.trainer import prepare
from aigc_text.data import load_texts

CHARACTERS = tuple(map(ord, "abcdefgh春"))
TOKENS = SPECIAL + len(CHARACTERS)
OPTIONS = {"layers": 2, "width": 16, "dropout": 0.0, "tied": True, "layer_norm": False, "attention": 0}


def network(labels=0, cell="lstm", places=(), **options):
    torch.manual_seed(3)
    made = RecurrentNetwork(TOKENS, labels, places, cell=cell, **OPTIONS | options).eval()
    with torch.no_grad():  # or all characters are as probable
        made.embedding.weight.mul_(4)
        made.output.bias.normal_()
    return made


KINDS = [
    {"cell": cell, "attention": attention, "layer_norm": layer_norm, "tied": not layer_norm}
    for cell in ("lstm", "gru", "rnn")
    for attention, layer_norm in ((0, False), (3, True))
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("labels", [0, 4])
def test_network_reads_a_sequence_as_it_reads_its_parts_and_its_steps(kind, labels):
    net = network(labels, places=(3, 2) if labels else (), **kind)
    tokens = torch.randint(0, TOKENS, (5, 11))
    # Of both there are two of each, or none.
    label = torch.stack([torch.arange(5) % 2, 2 + torch.arange(5) % 2], 1) if labels else None
    place = torch.stack([torch.randint(0, k, (5, 11)) for k in (3, 2)], 2) if labels else None
    now = [() if place is None else [place[:, t]] for t in range(11)]
    with torch.no_grad():
        whole, after = net(tokens, label, net.start(5), place)
        first, state = net(tokens[:, :4], label, net.start(5), place if place is None else place[:, :4])
        second, in_parts = net(tokens[:, 4:], label, state, place if place is None else place[:, 4:])
        steps, state, step = [], net.split(net.start(5)), net.stepper(label)
        for t in range(11):
            logits, state = step(tokens[:, t, None], state, torch.zeros(()), now[t])
            steps.append(logits)
        state = net.join(state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-4, atol=1e-5)
    for name, (shape, dtype) in net.state_shapes.items():
        assert after[name].shape == (5, *shape) and after[name].dtype == dtype
        torch.testing.assert_close(state[name], after[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(in_parts[name], after[name], rtol=1e-4, atol=1e-5)


def test_step_of_a_layer_is_that_of_the_paper():
    net = network(cell="lstm", layers=1)
    layer, x, h, c = net.layers[0], *torch.randn(3, 1, 16)
    with torch.no_grad():
        hidden, cell = layer.step(layer.share_of(x), h, c)
        gates = (x @ layer.weight_x.T + h @ layer.weight_h.T + layer.bias_x + layer.bias_h)[0].double().numpy()
    i, f, g, o = gates.reshape(4, 16)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731 - shorter than a function
    wanted = sigmoid(f) * c[0].numpy() + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(cell[0], wanted, atol=1e-6)
    np.testing.assert_allclose(hidden[0], sigmoid(o) * np.tanh(wanted), atol=1e-6)


def test_attention_looks_at_the_last_states_and_no_farther():
    net = network(attention=3)
    tokens = torch.randint(SPECIAL, TOKENS, (1, 9))
    states = torch.randn(1, 12, 16)
    with torch.no_grad():
        seen, _ = net.attention(states[:, 3:], states[:, :3], torch.tensor([3]))
        other = states.clone()
        other[:, 5] += 10
        changed, _ = net.attention(other[:, 3:], other[:, :3], torch.tensor([3]))
        young, _ = net.attention(states[:, 3:], torch.randn(1, 3, 16), torch.tensor([0]))
        without, _ = net.attention(states[:, 3:], torch.zeros(1, 3, 16), torch.tensor([0]))
    differs = (seen != changed).any(2)[0].tolist()
    # The state itself, and the three after it.
    assert differs == [False, False, True, True, True, True, False, False, False]
    assert torch.equal(young, without), "before the first step there is nothing to look at"
    assert tokens.shape == (1, 9)


def plain_choice(logits, seen, u, temperature, top_k, top_p, penalty):
    """How a token is chosen, step by step, in numpy."""
    logits = logits.astype(np.float64)
    for token in np.flatnonzero(seen):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    if temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    if top_k:
        order = order[:top_k]
    share = np.exp((logits[order] - logits[order[0]]) / temperature)
    share /= share.sum()
    fewest = int(np.searchsorted(np.cumsum(share), top_p - 1e-9)) + 1
    kept = np.zeros(len(logits))
    kept[order[:fewest]] = share[:fewest] / share[:fewest].sum()
    return int(np.argmax(np.cumsum(kept) > min(u, np.cumsum(kept)[-1] - 1e-12)))


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 5, 99])
@pytest.mark.parametrize("top_p", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_choice_is_that_of_the_definitions(temperature, top_k, top_p, penalty):
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (200, 17)).astype(np.float32)
    seen = rng.random((200, 17)) < 0.3
    u = (rng.integers(0, 2**24, 200) * 2.0**-24).astype(np.float32)
    how = choosing(200, temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty)
    chosen = choose(torch.tensor(logits), torch.tensor(seen), torch.tensor(u)[:, None], how)[:, 0].tolist()
    wanted = [plain_choice(*row, temperature, top_k, top_p, penalty) for row in zip(logits, seen, u, strict=True)]
    assert sum(a != b for a, b in zip(chosen, wanted, strict=True)) <= 1  # one may lie on an edge


def choosing(n, tokens=17, **values):
    usual = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0} | values
    return Choosing.of({name: torch.full((n,), value) for name, value in usual.items()}, tokens)


def test_choice_follows_the_probabilities():
    logits = torch.tensor([[1.0, 0.0, -1.0]]).expand(30_000, 3)
    u = ((torch.arange(30_000) + 0.5) / 30_000)[:, None]
    seen = torch.zeros(30_000, 3, dtype=torch.bool)
    counts = torch.bincount(choose(logits, seen, u, choosing(30_000, tokens=3))[:, 0], minlength=3)
    torch.testing.assert_close(counts / 30_000, torch.softmax(logits[0], 0), atol=1e-3, rtol=0)


def test_many_tokens_are_drawn_as_probably_by_blocks():
    logits = torch.tensor([2.0, 1.0, -1e9, 0.5, 1.5, -1.0, 0.0]).expand(40_000, 7)  # blocks of 3
    rng = np.random.default_rng(0)
    u = torch.tensor((rng.integers(0, 2**24, (40_000, 2)) * 2.0**-24).astype(np.float32))
    seen = torch.zeros(40_000, 7, dtype=torch.bool)
    counts = torch.bincount(choose(logits, seen, u, choosing(40_000, tokens=7))[:, 0], minlength=7)
    torch.testing.assert_close(counts / 40_000, torch.softmax(logits[0], 0), atol=8e-3, rtol=0)
    edge = torch.full((40_000, 2), 1 - 2.0**-24)
    assert (choose(logits, seen, edge, choosing(40_000, tokens=7)) == 6).all()
    cold = choose(logits, seen, u, choosing(40_000, tokens=7, temperature=0.0))
    few = choose(logits, seen, u, choosing(40_000, tokens=7, top_k=2))
    assert (cold == 0).all() and set(few[:, 0].tolist()) == {0, 4}


def test_number_next_to_one_chooses_no_token_that_was_left_out():
    rng = np.random.default_rng(0)
    logits = torch.tensor(np.append(rng.normal(0, 5, (20_000, 30)), np.full((20_000, 9), -1e9), 1).astype(np.float32))
    u = torch.full((20_000, 1), 1 - 2.0**-24)
    for how in ({}, {"top_k": 7}, {"top_p": 0.9}):
        chosen = choose(logits, torch.zeros_like(logits, dtype=torch.bool), u, choosing(20_000, tokens=39, **how))
        assert (chosen < 30).all()
        rank = (logits > logits.gather(1, chosen)).sum(1)
        assert rank.max() < how.get("top_k", 39)


def controls(n, prompt=("",), **values):
    usual = {"max_length": 12, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0} | values
    made = {name: torch.tensor(value).expand(n).clone() for name, value in usual.items()}
    codes = torch.tensor(encode([*prompt]))
    return {"prompt": codes if len(codes) == n else codes.expand(n, -1), **made}


def plain_text(net, seed, prompt, most, label=None):
    """One text at temperature 1, a token at a time."""
    state, token, made, step = net.split(net.start(1)), BEGIN, [], net.stepper(label)
    for character in prompt:
        _, state = step(torch.tensor([[token]]), state, torch.zeros(()))
        token = SPECIAL + CHARACTERS.index(ord(character)) if ord(character) in CHARACTERS else 2
    for i in range(most):
        logits, state = step(torch.tensor([[token]]), state, torch.zeros(()))
        word = threefry((seed & 0xFFFFFFFF, seed >> 32), (i, int(Stream.TOKEN)))[0]
        allowed = logits[0].clone()
        allowed[[BEGIN, 2]] = -1e9
        token = plain_choice(allowed.numpy(), np.zeros(TOKENS, bool), (word >> 8) * 2.0**-24, 1.0, 0, 1.0, 1.0)
        if token == END:
            break
        made.append(chr(CHARACTERS[token - SPECIAL]))
    return "".join(made)


@pytest.mark.parametrize("attention", [0, 3])
def test_loop_makes_what_is_made_a_token_at_a_time(attention):
    net = network(attention=attention)
    loop = Generate(net, CHARACTERS, {})
    prompts = ["", "a", "abc春", "?b", "hhhhhhh", "春春"]
    seeds = [0, 7, 2**40 + 3, 5, 2**53 - 1, 11]
    lengths = [12, 1, 9, 30, 3, 12]
    with torch.no_grad():
        content, length = loop(torch.tensor(seeds), controls(6, prompts, max_length=lengths))
        wanted = [plain_text(net, *row) for row in zip(seeds, prompts, lengths, strict=True)]
    assert [decode(row[:size]) for row, size in zip(content.numpy(), length.tolist(), strict=True)] == wanted
    assert content.shape == (6, 30) and all((row[size:] == -1).all() for row, size in zip(content, length, strict=True))
    assert len({*map(len, wanted)}) > 2, "some end before their length"


def test_temperature_zero_takes_the_most_probable_and_a_penalty_changes_it():
    loop = Generate(network(), CHARACTERS, {})
    with torch.no_grad():
        cold, _ = loop(torch.tensor([1, 2]), controls(2, temperature=0.0))
        same, _ = loop(torch.tensor([1, 2]), controls(2, top_k=1))
        varied, _ = loop(torch.tensor([1, 2]), controls(2, temperature=0.0, repetition_penalty=3.0))
    assert torch.equal(cold[0], cold[1]) and torch.equal(cold, same)
    assert not torch.equal(cold, varied)


@pytest.mark.parametrize("sizes", [(1,), (5, 2), (40,)])
def test_stream_joins_to_what_is_made_at_once(sizes):
    net = network(attention=3)
    seeds, most = torch.arange(9) * 977, 40
    fed = controls(9, [*"abcdefgh", "春春春"], max_length=most, repetition_penalty=1.3)
    streamed = StreamOn(net, CHARACTERS, {})
    with torch.no_grad():
        content, length = Generate(net, CHARACTERS, {})(seeds, fed)
        state = {f"state.{name}": part for name, part in streamed.start(9).items()} | {
            "position": torch.zeros_like(seeds)
        }
        texts, left, turn = [""] * 9, most, 0
        while left:
            size = min(left, sizes[turn % len(sizes)])
            made, count, *parts, finished = streamed(seeds, {**fed, "max_length": torch.full((9,), size)}, state)
            texts = [t + decode(row[:k]) for t, row, k in zip(texts, made.numpy(), count.tolist(), strict=True)]
            state = dict(zip(state, parts, strict=True))
            left, turn = left - size, turn + 1
    assert texts == [decode(row[:size]) for row, size in zip(content.numpy(), length.tolist(), strict=True)]
    assert finished.tolist() == [size < most for size in length.tolist()]


@pytest.mark.parametrize("ends", [True, False])
def test_score_is_the_likelihood_over_all_labels(ends):
    net, frequencies = network(labels=2), (0.25, 0.75)
    texts = ["abc", "", "h", "春?hh"]
    with torch.no_grad():
        codes = torch.tensor(encode(texts))
        found = Score(net, CHARACTERS, {"label": frequencies}, ends=ends)(codes, (codes >= 0).sum(1))
        for text, (nats, count) in zip(texts, found.tolist(), strict=True):
            tokens = [SPECIAL + CHARACTERS.index(ord(c)) if ord(c) in CHARACTERS else 2 for c in text]
            total = 0.0
            for label, share in enumerate(frequencies):
                logits, _ = net(torch.tensor([[BEGIN, *tokens]]), torch.tensor([[label]]), net.start(1))
                log_p = torch.log_softmax(logits[0].double(), 1)
                targets = [*tokens, END] if ends else tokens
                total += share * math.exp(sum(log_p[i, target].item() for i, target in enumerate(targets)))
            assert nats == pytest.approx(-math.log(total), abs=1e-4) and count == len(text)


def test_training_learns_the_texts(trained_rnn):
    figures = [line["validation"] for line in trained_rnn.metrics if "validation" in line]
    # Of four syllables of six the label tells the first.
    record = trained_rnn.record
    per_character = 3 * math.log(6) * record.data.split["train"] / sum(record.details["characters"].values())
    assert figures[-1]["nats_per_character"] < 1.2 * per_character
    assert figures[-1]["perplexity"] == pytest.approx(math.exp(figures[-1]["nats_per_character"]))
    assert figures[-1]["bits_per_character"] == pytest.approx(figures[-1]["nats_per_character"] / math.log(2))


def test_trained_model_makes_texts_of_the_label(trained_rnn):
    made = sdk.generate(trained_rnn.folder, 60, seed=1, label=["ka"] * 30 + ["te"] * 30, temperature=0.5)
    begins = [str(text).startswith(kind) for text, kind in zip(made, ["ka"] * 30 + ["te"] * 30, strict=True)]
    assert np.mean(begins) > 0.9


def test_prompt_is_gone_on_with(trained_rnn):
    prompts = ["ka", "", "lomi", "t"]
    together = sdk.generate(trained_rnn.folder, seeds=[5, 6, 7, 8], prompt=prompts)
    alone = [sdk.generate(trained_rnn.folder, seed=5 + i, prompt=prompt)[0] for i, prompt in enumerate(prompts)]
    assert [*map(str, together)] == [*map(str, alone)]
    assert together[0].provenance["controls"]["prompt"] == "ka"


def test_stream_of_a_trained_model(trained_rnn):
    whole = str(sdk.generate(trained_rnn.folder, seed=3, prompt="ka")[0])
    for chunk_size in (1, 3, 100):
        pieces = list(sdk.stream(trained_rnn.folder, seed=3, prompt="ka", chunk_size=chunk_size))
        assert "".join(pieces) == whole and len(pieces) == math.ceil(len(whole) / chunk_size)
    with pytest.raises(InvalidRequest, match="chunk_size is 0"):
        sdk.stream(trained_rnn.folder, chunk_size=0)
    with pytest.raises(InvalidRequest, match="makes all at once; use generate, or load its task stream"):
        sdk.stream(sdk.load(trained_rnn.folder))
    file = trained_rnn.folder / "model.onnx"  # the task's own lies beside
    assert "".join(sdk.stream(file, seed=3, prompt="ka")) == whole
    assert sdk.load(file, task="stream").card.task == "stream"
    for name in (file, trained_rnn.folder / "model.stream.onnx"):
        with pytest.raises(UnknownName, match=r"no task of .* 'sing'"):
            sdk.load(name, task="sing")


def test_weights_of_a_trained_model_are_made_whole_while_loading(trained_rnn):
    assert all(may_fold(path.read_bytes()) for path in trained_rnn.models.values())


def test_score_of_a_trained_model(trained_rnn):
    likely, rare = sdk.measure(trained_rnn.models["score"], ["kalomira", "kkkkkkkk"])
    assert likely[0] < rare[0] - 5 and likely[1] == rare[1] == 8
    made = sdk.generate(trained_rnn.folder, 5, seed=1)
    assert sdk.measure(trained_rnn.models["score"], made)[:, 1].tolist() == [len(text.data) for text in made]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"prompt": "xyz€"},
            r"characters that the model does not know: 'x' \(U\+0078\), 'y' \(U\+0079\), .*'€' \(U\+20AC\)",
        ),
        ({"prompt": "\ud800\0"}, r"'\\x00' \(U\+0000\), '\\ud800' \(U\+D800\)"),
        ({"prompt": "ka" * 5_000_000}, "a text of 10000000 characters; give a text of at most"),
        ({"prompt": ["ka", "€"]}, r"prompt\[1\] has characters"),
        ({"prompt": 3}, "prompt is 3; give a text"),
        ({"temperature": -1}, "a number from 0 to 5"),
        ({"temperature": float("nan")}, "a number from 0 to 5"),
        ({"top_p": 0}, "a number from 0.01 to 1"),
        ({"max_length": 0}, "a whole number from 1 to"),
        ({"max_length": 10**9}, "a whole number from 1 to"),
    ],
)
def test_control_that_cannot_be_used_raises(trained_rnn, given, words):
    with pytest.raises(InvalidRequest, match=words):
        sdk.generate(trained_rnn.folder, **given)


def stream_of(text, **options):
    """A training on one long text, and the family's own batches of a pass."""
    data = load_texts([text])
    family = RNN(RNNConfig(width=8, layers=1, span=16, batch_size=4, **options))
    split = data.split(0.1, 0.1)
    family.build(data.spec(split["train"]))
    return data, family, split


def test_stream_is_read_in_places_that_go_on(tmp_path):
    text = "".join(chr(97 + i % 23) for i in range(40_000))
    data, family, split = stream_of(text)
    trainer = prepare(tmp_path, family, data, split, seed=0)
    batches = list(trainer.epoch())
    assert len(batches) == trainer.clock.steps_per_epoch
    read = torch.cat([batch["codes"] for batch in batches], 1)
    assert read.shape[0] == 4 and [bool(batch["begins"].any()) for batch in batches] == [
        True,
        *[False] * (len(batches) - 1),
    ]
    for row in read.tolist():
        assert all((b - a) % 23 == 1 for a, b in itertools.pairwise(row)), "each place reads on where it stopped"
    trainer.clock.position = 5
    assert torch.equal(next(iter(trainer.epoch()))["codes"], batches[5]["codes"])
    held = [split[part][0] for part in ("train", "validation", "test")]
    assert held == sorted(held) and split["train"][-1] + 1 == split["validation"][0]


def test_too_few_characters_raise():
    spec = load_texts(["ab", "cd", "ef"]).spec(np.arange(3))
    with pytest.raises(InvalidData, match="Of 6 characters, 0 occur at least min_count=2 times"):
        RNN(RNNConfig()).build(spec)


def test_rare_characters_are_unknown_and_never_made():
    data = load_texts(["aab", "bba", "abz"] * 1 + ["ba", "ab"])
    family = RNN(RNNConfig(width=8, layers=1))
    torch.manual_seed(0)
    family.build(data.spec(np.arange(data.n)))
    assert family.controls("generate")[0].choices == ("a", "b")
    assert tokens_of(family.codes, torch.tensor(encode(["azb"]))).tolist() == [[3, 2, 4]]
    with torch.no_grad():
        content, _ = family.sampler("generate")(torch.arange(200), controls(200, max_length=4, temperature=5.0))
    assert set(content.flatten().tolist()) <= {-1, ord("a"), ord("b")}


def test_command_line_shows_texts_and_saves_them(trained_rnn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = str(trained_rnn.folder)
    texts = [str(text) for text in sdk.generate(folder, 3, seed=5, prompt="ka")]

    def aigc(*arguments):
        done = CliRunner().invoke(cli.app, ["generate", folder, "--seed", "5", "-c", "prompt=ka", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert aigc("-n", "3") == "".join(f"{text}\n" for text in texts) and not list(tmp_path.iterdir())
    assert aigc("--stream") == f"{texts[0]}\n"
    assert [row["text"] for row in json.loads(aigc("-n", "3", "--json"))] == texts
    aigc("-n", "3", "-o", "out")
    assert [path.read_text() for path in sorted((tmp_path / "out").glob("*.txt"))] == texts
    with pytest.raises(InvalidRequest, match="--stream shows one item"):
        CliRunner().invoke(cli.app, ["generate", folder, "--stream", "-n", "2"], catch_exceptions=False)


def test_text_is_reproduced_from_its_file(trained_rnn, tmp_path):
    made = sdk.generate(trained_rnn.folder, 2, seed=5, prompt=["ka", "lo"], label="mi")
    first, second = made.save(tmp_path / "out")
    assert sdk.reproduce(second, model=trained_rnn.folder) == made[1:]
    first.write_text("edited")
    with pytest.raises(NotReproduced, match="is not what its model makes here"):
        sdk.reproduce(first, model=trained_rnn.folder)


def test_texts_have_no_grid_or_format_of_images(trained_rnn, tmp_path):
    made = sdk.generate(trained_rnn.folder, 2, seed=5)
    assert not hasattr(made, "grid")
    with pytest.raises(InvalidRequest, match=r"Cannot save a text as 'a\.png'"):
        made[0].save(tmp_path / "a.png")
    assert f"<pre>{made[0]}</pre>" in made._repr_html_() and repr(made[0]) == f"<Text {str(made[0])!r}>"


def test_samples_of_a_training_are_texts(trained_rnn):
    (path,) = sorted((trained_rnn.folder / "samples").iterdir())
    shown = path.read_text().split("\n\n--------\n\n")
    assert shown == [str(text) for text in sdk.generate(trained_rnn.folder, 8, seed=0)]
