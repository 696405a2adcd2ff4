"""Starting from other weights: a vector follows its character, event, key, metre or label."""

import logging

import numpy as np
import pytest
import torch

import aigc_sdk as sdk
from aigc_image.data import load_data
from aigc_music.data import Piece, load_music
from aigc_rnn.config import MusicRNNConfig, RNNConfig
from aigc_rnn.family import RNN
from aigc_rnn.music import MusicRNN
from aigc_sdk.generation import model_file
from aigc_sdk.registry import default_registry
from aigc_sdk.training import Run, loop
from aigc_sdk.training.family import parse_config
from aigc_sdk.training.initial import find_source, start_from
from aigc_sdk.training.loop import with_network
from aigc_sdk.training.plan import plan
from aigc_sdk.training.stored import read_stored
from aigc_text.data import load_texts

NO_SPLIT = {"validation_fraction": 0, "test_fraction": 0}
SMALL = {"width": 8, "layers": 1, "min_count": 1, "batch_size": 4, **NO_SPLIT}


@pytest.fixture(autouse=True)
def no_export(monkeypatch):
    monkeypatch.setattr(loop, "_export_all", lambda *_: None)
    monkeypatch.setattr(loop, "_write_samples", lambda *_: None)


def texts(letters, labels=None):
    made = ["".join(letters[i:] + letters[:i]) for i in range(len(letters))]
    return made if labels is None else (made, [labels[i % len(labels)] for i in range(len(made))])


def built(data, **options):
    torch.manual_seed(5)
    dataset = load_texts(data)
    family = RNN(RNNConfig(**SMALL | options))
    family.build(dataset.spec(np.arange(dataset.n)))
    return family


def vectors(family, name):
    """What the rows of a tensor are, by what they belong to."""
    return dict(zip(family.rows()[name], family.state_dict()[name], strict=True))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("letters", "fresh", "dropped"),
    [
        ("abcdefgh", "", ""),  # the same
        ("abcdefghxyz", "xyz", ""),  # a larger one
        ("0abcdefgh", "0", ""),  # every row one further on
        ("bdf", "", "acegh"),  # a smaller one
        ("stuvwxyz", "stuvwxyz", "abcdefgh"),  # as many others
        ("efghijkl", "ijkl", "abcd"),  # as many, half of them others
    ],
)
def test_init_of_texts_vectors_follow_their_characters(tmp_path, caplog, letters, fresh, dropped, tied):
    run = sdk.train("rnn", texts("abcdefgh"), out=tmp_path / "first", steps=2, tied=tied, **SMALL)
    before, family = run.family(), built(texts(letters), tied=tied)
    own = {name: vectors(family, name) for name in family.rows()}
    own = {name: {key: row.clone() for key, row in rows.items()} for name, rows in own.items()}
    report = start_from(family, find_source(run))
    assert report["fresh"] == [f"character {each!r}" for each in fresh]
    assert report["dropped"] == [f"character {each!r}" for each in dropped]
    assert report["of_other_shape"] == []
    assert "".join(map(chr, family.codes.tolist())) == "".join(sorted(letters))
    for name in ("network.embedding.weight", "network.output.weight", "network.output.bias"):
        ours, theirs = vectors(family, name), vectors(before, name)
        for key, row in ours.items():
            assert torch.equal(row, theirs[key] if key in theirs else own[name][key]), (name, key)
    assert torch.equal(family.network.layers[0].weight_h, before.network.layers[0].weight_h)


def test_init_of_texts_vectors_follow_their_labels(tmp_path):
    run = sdk.train("rnn", texts("abcdefgh", ["cat", "dog"]), out=tmp_path / "first", steps=2, **SMALL)
    family = built(texts("abcdefgh", ["bird", "cat"]))
    report = start_from(family, find_source(run))
    ours, theirs = (vectors(each, "network.label.weight") for each in (family, run.family()))
    assert torch.equal(ours["label 'cat'"], theirs["label 'cat'"])
    assert (report["fresh"], report["dropped"]) == (["label 'bird'"], ["label 'dog'"])


def test_init_of_texts_writes_its_own_characters_and_says_what_was_dropped(tmp_path, caplog):
    first = sdk.train("rnn", texts("abcdefgh"), out=tmp_path / "first", steps=2, **SMALL)
    with caplog.at_level(logging.WARNING, "aigc_sdk"):
        run = sdk.train("rnn", texts("stuvwxyz"), out=tmp_path / "next", init=first, steps=2, **SMALL)
    text = run.exportable("generate").eager.card.controls[0].choices
    assert "".join(text) == "stuvwxyz"
    assert "init: dropped: character 'a'" in caplog.text and "init: fresh: character 's'" in caplog.text
    assert Run.open(run.folder).record.init["dropped"] == [f"character {each!r}" for each in "abcdefgh"]


def piece(i, pitches, key, meter):
    notes = [(pitch, 80, 24 * k, 24, 0, 0) for k, pitch in enumerate(pitches)]
    return Piece(f"piece {i}", np.array(notes), key=key, meter=meter)


def music(first, keys, meters):
    return [
        piece(i, [first + (i + k) % 6 for k in range(8)], keys[i % len(keys)], meters[i % len(meters)])
        for i in range(12)
    ]


@pytest.mark.parametrize(
    ("first", "meters"), [(60, ("4/4", "6/8")), (63, ("4/4", "6/8")), (66, ("3/4",)), (50, ("6/8", "2/4"))]
)
def test_init_of_music_vectors_follow_their_events_keys_metres_and_places(tmp_path, first, meters):
    options = {**SMALL, "transpose": 0}
    run = sdk.train("music-rnn", music(60, (0, 7), ("4/4", "6/8")), out=tmp_path / "first", steps=2, **options)
    before, data = run.family(), load_music(music(first, (7, 2), meters), 0)
    family = MusicRNN(MusicRNNConfig(**options))
    family.build(data.spec(np.arange(data.n)))
    own = {name: {key: row.clone() for key, row in vectors(family, name).items()} for name in family.rows()}
    report = start_from(family, find_source(run))
    shared = 0
    for name in before.rows():
        theirs = vectors(before, name)
        for key, row in vectors(family, name).items():
            shared += key in theirs
            assert torch.equal(row, theirs[key] if key in theirs else own[name][key]), (name, key)
    assert shared > 100 and report["of_other_shape"] == []
    # Of its keys it knows one, and no note where they are others.
    assert "key G" not in report["fresh"] and "key D" in report["fresh"]
    assert ("note 60" in report["dropped"]) == (first > 60)


@pytest.mark.parametrize("name", ["shakespeare", "names", "poems", "folk-tunes"])
def test_init_from_a_ready_made_model_fits_whole(name):
    source, card = find_source(name), sdk.load(name).card
    family_class = {"rnn": RNN, "music-rnn": MusicRNN}[card.family]
    family = family_class(family_class.Config(**card.config))
    family.build(family_class.spec_of(card, read_stored(model_file(name)).codes))
    report = start_from(family, source)
    assert report["missing"] == report["of_other_shape"] == report["fresh"] == report["dropped"] == []


@pytest.mark.parametrize("name", ["digits-vae", "digits-gan", "emoji-gan"])  # whose weights are float32 and float16
def test_init_from_a_ready_made_model_of_images_brings_what_makes_them(name):
    card, source = sdk.load(name).card, find_source(name)
    labels = np.arange(4 * len(card.control("label").choices)) % len(card.control("label").choices)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), *card.output.shape), np.uint8)
    spec = load_data((images, labels)).spec(np.arange(len(labels)))
    family_class = default_registry().find("family", card.family).resolve()
    family = family_class(parse_config(card.family, family_class.Config, with_network(card.family, name, {})))
    family.build(spec)
    report = start_from(family, source)
    assert report["of_other_shape"] == report["fresh"] == report["dropped"] == []
    # The file has no encoder or discriminator, a normalisation is a scale and a shift in it, and of the prior's network
    # what does not change from call to call is folded.
    sampler = {weights.data_ptr(): each for each, weights in family.named_parameters() if weights.ndim > 1}
    made_by = {sampler[w.data_ptr()] for w in family.sampler(card.task).parameters() if w.data_ptr() in sampler}
    left = made_by.intersection(report["missing"])
    assert len(made_by) > 5 and left <= {"prior.time.0.weight", "prior.time.2.weight"}


def test_init_from_a_ready_made_model_makes_its_texts_at_once(tmp_path):
    """A text in its manner costs what it costs the model, and a training goes on from there."""
    data = ["First Citizen:\nWe are accounted poor citizens.", "What authority surfeits on would relieve us."]
    options = {"batch_size": 2, "steps": 1, "warmup_steps": 0, "learning_rate": 1e-9, "min_count": 1}
    run = sdk.train("rnn", data, out=tmp_path / "run", init="shakespeare", **options, **NO_SPLIT)
    assert run.record.init["run"] == "shakespeare" and run.record.init["fresh"] == []
    assert run.metrics[-1]["loss"] < 2.5 < np.log(84)
    assert run.record.config["width"] == 400  # which is its, as none was asked for


def test_init_brings_its_network_where_none_is_asked_for(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    options = {"steps": 2, "min_count": 1, "batch_size": 4, **NO_SPLIT}
    first = sdk.train("rnn", texts("abcdefgh"), out=tmp_path / "first", width=12, layers=1, cell="gru", **options)
    run = sdk.train("rnn", texts("abcdefgh"), out=tmp_path / "second", init=first, layers=2, **options)
    assert [run.record.config[name] for name in ("cell", "width", "layers")] == ["gru", 12, 2]
    assert "init: its network is taken: cell=gru, width=12" in caplog.text
    assert run.record.init["of_other_shape"] == [] and len(run.record.init["missing"]) > 0
    planned = plan("rnn", texts("abcdefgh"), init=first, config={**options, "width": None})
    assert (planned.config["width"], planned.config["layers"]) == (12, 1)
    # A training is resumed with the network that it has, and another family keeps its own.
    again = sdk.train("rnn", texts("abcdefgh"), out=run.folder, resume=True, **options)
    assert again.record.config["width"] == 12
    with pytest.raises(sdk.errors.InvalidRequest, match="Nothing of init"):
        sdk.train(
            "vae", np.arange(512).astype(np.uint8).reshape(8, 8, 8, 1), out=tmp_path / "other", init=first, steps=1
        )


@pytest.mark.parametrize(
    "name", ["digits-vae", "digits-gan", "emoji-gan", "shakespeare", "poems", "names", "folk-tunes"]
)
def test_init_from_every_ready_made_model_needs_no_option(name):
    card = sdk.load(name).card
    family = default_registry().find("family", card.family).resolve()
    options = parse_config(card.family, family.Config, with_network(card.family, name, {}))
    for option in family.network_options:
        assert options.model_dump(mode="json")[option] == card.config[option]


@pytest.mark.parametrize(("init", "given"), [("folk-tunes", {"width": 8}), ("shakespeare", {"width": 8})])
def test_init_of_which_nothing_fits_is_an_error(tmp_path, init, given):
    options = {"steps": 1, "layers": 1, "min_count": 1, **NO_SPLIT, **given}
    words = ["\u4e00\u4e8c\u4e09", "\u4e09\u4e8c\u4e00"]  # characters that neither of them knows
    with pytest.raises(sdk.errors.InvalidRequest, match="Nothing of init"):
        sdk.train("rnn", words, out=tmp_path / "run", init=init, **options)
