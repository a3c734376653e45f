"""Folders of micro-world clips, one per class, as `mbt-lite world --classes` makes them."""

import json

import pytest

from mbt_lite import cli
from mbt_lite.config import DataConfig
from mbt_lite.data import (
    class_folders,
    datasets,
    sources,
    tables,
    world,
)

PAIR = ("circle sings", "ring sings")
TEN = (*(f"pitch {motion}" for motion in world.MOTIONS), "circle rises", "bell heard")
TEN += ("hiss heard", *world.BOTH)


@pytest.mark.parametrize("classes", [PAIR, TEN], ids=["2", "10"])
def test_exactly_one_of_the_classes_is_true_of_each_clip(classes):
    scenes_of = class_folders.cast(classes, 5, world.SPLITS["test"])
    assert tuple(scenes_of) == tuple(classes)
    for name, scenes in scenes_of.items():
        assert len(scenes) == 5
        assert all({name} == set(classes) & set(scene.names) for scene in scenes)
    everything = [scene for scenes in scenes_of.values() for scene in scenes]
    assert len(set(everything)) == 5 * len(classes)


def test_classes_that_cannot_be_separated_are_refused():
    with pytest.raises(ValueError, match="no class 'dog barks'; .*circle rises.*ladder sings"):
        class_folders.cast(("siren", "dog barks"), 1, 0)
    for wrong in (("siren",), ("siren", "siren", "rain")):
        with pytest.raises(ValueError, match="two or more different classes"):
            class_folders.cast(wrong, 1, 0)
    every = [f"circle {motion}" for motion in world.MOTIONS]  # one of them where a circle sings
    with pytest.raises(ValueError, match="'circle sings' is true without the other classes"):
        class_folders.cast(("circle sings", *every), 1, 0)


def test_the_folders_are_read_back_as_classes_and_divided(tmp_path, capsys):
    out = tmp_path / "clips"
    command = ["world", "--classes", *PAIR, "--out", str(out), "-n", "3", "--size", "32"]
    assert cli.main(command) == 0 and capsys.readouterr().out.strip() == str(out)
    assert sorted(path.name for path in out.iterdir()) == ["circle_sings", "ring_sings"]
    key = json.loads((out / "ring_sings" / "key.json").read_text())
    assert list(key) == [f"world_{number:04d}.mp4" for number in range(3)]
    source = sources.open_source(out)
    assert source.labels == ("circle_sings", "ring_sings") and len(source) == 6
    assert [row.labels[0] for row in source.rows] == ["circle_sings"] * 3 + ["ring_sings"] * 3
    table = tables.read(out / "ring_sings", classes=world.LABELS)
    assert all("ring sings" in row.labels for row in table.rows)
    config = DataConfig(path=str(out), holdout=0.3)
    assert sum(len(datasets.open_split(config, role)) for role in datasets.ROLES) == 6
    assert cli.main(command) == 1
    assert "is not empty; name a new folder" in capsys.readouterr().err
