"""What the page of an evaluation says of a model, from its run and its shards."""

import json

import pytest

from pcl.commands.model_card import model_card
from pcl.config.identity import experiment
from pcl.encoders.build import build_model
from pcl.train.parts import model_spec
from tests.train.test_session import config, shards

__all__ = ["shards"]
NAME = "checkpoint_00000020"


@pytest.fixture
def card_of(shards, make_shards, tmp_path):
    """Return a function that makes the card of a model that was never trained."""
    from pcl.data.manifest import load_manifest

    manifest = load_manifest(shards)

    def make(*overrides, best="", recorded=None, provenance=None):
        chosen = config(shards, *overrides)
        (tmp_path / "provenance.json").write_text(json.dumps(provenance or {}))
        known = experiment(chosen) | {"manifest_sha256": "abc", "plugins.mine": "def"} | (recorded or {})
        model = build_model(model_spec(chosen, manifest))
        return model_card(chosen, tmp_path, NAME, model, manifest, known, best)

    return make


def test_it_says_what_was_trained_on_what_and_what_differs_from_the_defaults(card_of):
    card = card_of("train.validation_fraction=0.15", "model.tilting=cosine")
    assert card.title == f"gaussian, {NAME}"
    assert "trained by the conditional loss on 1,276 pairs of gaussian_process" in card.about[0]
    assert f"{NAME} is judged on 40 pairs of the test split" in card.about[0]
    chosen = dict(card.facts["Configuration, where it differs from the defaults"][1:])
    assert chosen["train.validation_fraction"] == "0.15"
    assert chosen["model.tilting"] == "cosine"
    assert chosen["train.epochs"] == "6"  # which has no default
    assert "train.schedule" not in chosen
    assert "manifest_sha256" not in chosen
    assert dict(card.facts["The model"][1:])["weights of the encoder of u"] == str(12 * 5)


def test_it_says_what_to_distrust(card_of):
    assert card_of().warnings == ["Few pairs: a share of 40 has a standard error of up to 0.079."]
    one_sided = card_of("loss.weight_u_given_v=0", "evaluation.split=train", "evaluation.max_pairs=1000").warnings
    assert one_sided == [
        "The model was trained on these pairs: numbers tell how well it knows them, not others.",
        "The first 1,000 of 1,500 pairs were judged.",
        "u given v was not trained: the loss is that of the other direction alone.",
    ]
    assert "not by the pairs below" in card_of(best=NAME).warnings[0]
    assert card_of(best="checkpoint_00000010").warnings[0].startswith("Another checkpoint, checkpoint_00000010,")
    assert card_of("loss.kind=joint", "loss.weight_u_given_v=0").warnings == card_of().warnings


def test_it_says_where_a_model_comes_from_and_survives_junk(card_of):
    provenance = {"commit": "123", "versions": {"torch": "2.13"}, "command": ["pcl", "train"], "started": None}
    rows = dict(card_of(provenance=provenance).facts["Where it comes from"][1:])
    assert (rows["commit"], rows["torch"], rows["command"]) == ("123", "2.13", "pcl train")
    assert (rows["SHA-256 of the manifest of the shards"], rows["SHA-256 of mine"]) == ("abc", "def")
    assert rows["licence of the data"] == "none needed: generated"
    assert "begun" not in rows
    junk = {"versions": [1, 2], "command": {"a": 1}, "commit": "x" * 10_000, "python": [[None]]}
    rows = dict(card_of(provenance=junk).facts["Where it comes from"][1:])
    assert len(rows["commit"]) == 300
