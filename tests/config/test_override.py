import pytest

from cvpods_ext.config import (
    Cosine,
    DatasetFiles,
    EpochCosine,
    MultiStep,
    Polynomial,
    Steps,
    apply_overrides,
    changes,
    flatten,
    override,
)
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.override import fingerprint
from cvpods_ext.errors import ConfigError


def test_an_unknown_key_is_answered_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"unknown config key 'schedule.iter': did you mean 'iters'\?"):
        override(DetectionConfig(), schedule=dict(iter=3))


def test_an_unknown_section_is_refused():
    with pytest.raises(ConfigError, match="unknown config key 'shedule': did you mean 'schedule'"):
        apply_overrides(DetectionConfig(), ["shedule.iters=3"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("schedule.iters=9k", "schedule.iters must be int like 180000, got str '9k'"),
        ("schedule.iters=True", "schedule.iters must be int"),
        ("data.sampler=rfs", "must be one of 'uniform', 'repeat_factor'"),
        ("data.train_sizes=wide", r"data.train_sizes must be tuple\[int, ...\] like \(640"),
        ("schedule.decay=Sine", r"must be MultiStep\(drops\) or Steps\(drops, gamma\) or Cosine\(end\) or EpochCosine"),
        ("schedule.decay=EpochCosine", r"schedule.decay must be MultiStep\(drops\) or"),
        ("schedule.decay=Cosine(start=1)", r"schedule.decay must be MultiStep\(drops\) or"),
        ("schedule.decay=Cosine(end=2)", r"schedule.decay: end is a share of schedule.lr in \[0, 1\], got 2.0"),
        ("schedule.decay=print(1)", "schedule.decay must be MultiStep"),
        ("model.pixel_mean=(1,2)", "model.pixel_mean must be tuple"),
        ("lr", "overrides look like schedule.lr=0.01"),
    ],
)
def test_a_wrong_value_is_refused_with_the_expected_type(assignment, message):
    with pytest.raises(ConfigError, match=message):
        apply_overrides(DetectionConfig(), [assignment])


def test_ints_become_floats_and_lists_become_tuples():
    config = apply_overrides(DetectionConfig(), ["schedule.lr=1", "data.train_sizes=[96, 128]", "output=runs/a"])
    assert config.schedule.lr == 1.0
    assert isinstance(config.schedule.lr, float)
    assert config.data.train_sizes == (96, 128)
    assert config.output == "runs/a"


def test_changes_lists_exactly_what_differs_from_the_base():
    base = DetectionConfig()
    config = override(base, schedule=dict(lr=0.04), data=dict(sampler="repeat_factor"), seed=0)
    assert changes(config, base) == {
        "schedule.lr": (0.02, 0.04),
        "data.sampler": ("uniform", "repeat_factor"),
    }
    assert set(config.written) == {"schedule.lr", "data.sampler", "seed"}


def test_provenance_is_not_part_of_the_identity():
    base = DetectionConfig()
    assert override(base, seed=0) == base
    assert fingerprint(override(base, seed=0)) == fingerprint(base)
    assert fingerprint(override(base, seed=1)) != fingerprint(base)
    assert not {"base", "written", "folder"} & set(flatten(base))


def test_a_data_set_of_ones_own_is_a_pair_of_paths():
    config = override(DetectionConfig(), data=dict(train=DatasetFiles(annotations="a.json", images="img")))
    config = apply_overrides(config, ["data.train.images=other"])
    assert config.data.train == DatasetFiles(annotations="a.json", images="other")
    assert flatten(config)["data.train"] == {"annotations": "a.json", "images": "other", "names_may_leave": False}
    both = (DatasetFiles(annotations="a.json", images="img"), DatasetFiles(annotations="b.json", images="img"))
    joined = override(config, data=dict(train=both))
    assert joined.data.train == both
    assert [each["annotations"] for each in flatten(joined)["data.train"]] == ["a.json", "b.json"]
    assert fingerprint(joined) != fingerprint(override(config, data=dict(train=both[:1])))


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("lr", "'schedule.lr'"),
        ("schedule.drops", "'schedule.decay.drops'"),
        ("iters", "'schedule.iters'"),
        ("data.metrics", "'test.metrics'"),
        ("channels", "'data.channels'"),
        ("schedule.every", "'test.every'"),
    ],
)
def test_an_unknown_key_suggests_the_keys_with_the_same_last_part(key, suggestion):
    with pytest.raises(ConfigError, match=f"unknown config key '{key}': did you mean {suggestion}"):
        apply_overrides(DetectionConfig(), [f"{key}=1"])


@pytest.mark.parametrize(
    ("assignment", "value"),
    [("test.metrics=bbox", ("bbox",)), ("test.metrics=('bbox','segm')", ("bbox", "segm")), ("test.metrics=()", ())],
)
def test_a_bare_word_is_a_tuple_of_one(assignment, value):
    assert apply_overrides(DetectionConfig(), [assignment]).test.metrics == value


@pytest.mark.parametrize(
    ("text", "decay"),
    [
        ("MultiStep(drops=(2/3, 8/9))", MultiStep(drops=(2 / 3, 8 / 9))),
        ("MultiStep(drops=())", MultiStep(drops=())),
        ("MultiStep(drops=(0.5,))", MultiStep(drops=(0.5,))),
        ("Cosine(end=0.01)", Cosine(end=0.01)),
        ("EpochCosine(end=0.0, epochs=10)", EpochCosine(epochs=10)),
        ("Steps(drops=(2/3, 8/9), gamma=0.2)", Steps(gamma=0.2)),
        ("Polynomial(power=0.9, end=0.0)", Polynomial(power=0.9)),
    ],
)
def test_a_decay_reads_and_writes_the_text_of_its_call(text, decay):
    """So that what JSON and cards hold can be typed again."""
    config = apply_overrides(DetectionConfig(), [f"schedule.decay={text}"])
    assert config.schedule.decay == decay
    assert flatten(config)["schedule.decay"] == text
    assert str(decay) == text


def test_parts_of_a_decay_are_changed_by_their_own_key():
    base = DetectionConfig()
    assert apply_overrides(base, ["schedule.decay=Cosine"]).schedule.decay == Cosine()
    assert apply_overrides(base, ["schedule.decay.drops=(1/2, 3/4)"]).schedule.decay == MultiStep(drops=(0.5, 0.75))
    cosine = override(base, schedule=dict(decay=Cosine()))
    assert apply_overrides(cosine, ["schedule.decay.end=1/10"]).schedule.decay == Cosine(end=0.1)
    assert changes(cosine, base) == {"schedule.decay": ("MultiStep(drops=(2/3, 8/9))", "Cosine(end=0.0)")}
    assert set(cosine.written) == {"schedule.decay"}
    assert fingerprint(cosine) != fingerprint(base)


def test_the_task_is_part_of_what_is_written_down():
    assert flatten(DetectionConfig())["task"] == "detection"


@pytest.mark.parametrize(
    "assignment", ["schedule.iters=0", "schedule.decay.drops=(0.9, 0.5)", "schedule.images_per_device=3"]
)
def test_impossible_schedules_are_refused(assignment):
    with pytest.raises(ConfigError, match="schedule"):
        apply_overrides(DetectionConfig(), [assignment])


@pytest.mark.parametrize("order", [1, -1])
def test_values_that_only_fit_together_come_in_any_order(order):
    """With the base's 16 images at once neither could come first."""
    base = override(DetectionConfig(), schedule=dict(batch_size=16, images_per_device=16))
    config = apply_overrides(base, ["schedule.batch_size=6", "schedule.images_per_device=3"][::order])
    assert (config.schedule.batch_size, config.schedule.images_per_device) == (6, 3)


def test_of_two_values_for_a_key_the_later_one_counts():
    config = apply_overrides(
        DetectionConfig(), ["schedule.iters=10", "schedule={'iters': 20, 'lr': 1}", "schedule.lr=2"]
    )
    assert (config.schedule.iters, config.schedule.lr) == (20, 2.0)


def test_a_value_and_a_part_of_it_contradict_each_other():
    base = override(DetectionConfig(), data=dict(train=DatasetFiles(annotations="a.json", images="img")))
    with pytest.raises(ConfigError, match=r"data\.train is given as 'lvis_v1_train' and data\.train\.images as well"):
        apply_overrides(base, ["data.train=lvis_v1_train", "data.train.images=other"])
    assert apply_overrides(base, ["data.train.images=other", "data.train=lvis_v1_train"]).data.train == "lvis_v1_train"


@pytest.mark.parametrize(
    "assignment",
    [
        "schedule.lr=-1",
        "log_every=0",
        "checkpoint_every=0",
        "keep_checkpoints=0",
        "data.workers=-1",
        "test.every=-5",
        "test.max_detections=0",
    ],
)
def test_numbers_that_no_run_can_use_are_refused(assignment):
    with pytest.raises(ConfigError, match=rf"{assignment.partition('=')[0]} must be at least \d, got"):
        apply_overrides(DetectionConfig(), [assignment])
