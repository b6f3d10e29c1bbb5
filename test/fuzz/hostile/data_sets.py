"""What training reads: tasks, data set descriptions, records, arrays."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from threedme_ros.anatomy import AnatomyError
from threedme_ros.share import share_path
from threedme_ros.training import pretrain_task, task_table, tasks
from threedme_ros.training.datasets import medmnist3d, msd, nnunet
from threedme_ros.training.datasets.cases import SegmentationCase, Split, split_cases
from threedme_ros.training.errors import TrainingError
from threedme_ros.training.experiments.records import Records

from . import seeds, structure
from .decoder import Decoder, from_file
from .documents import JSON_WORDS, YAML_WORDS
from .mutation import text_mutator


def check_task(task) -> None:
    assert isinstance(task.name, str) and task.name and task.name.isprintable()


def check_splits(splits: dict) -> None:
    assert set(splits) == {"train", "val", "test"}
    for part in splits.values():
        assert len(part.images) == len(part.labels) and part.labels.min() >= 0 and part.labels.max() < 2


def check_mapping(document) -> None:
    assert isinstance(document, dict)


def read_dataset(path: Path) -> dict:
    """dataset.json as both of its readers see it; the files it lists are not there."""
    try:
        return {"nnunet": nnunet.read_description(path.parent)}
    except TrainingError:
        msd.check_labels(path.parent, {1: "liver"})
        return {"msd": msd.find_cases(path.parent, ("CT",))}


def read_record(path: Path) -> dict:
    def work() -> dict:
        raise AssertionError("the record was there")

    return Records(path.parent).once(path.stem, {"steps": 3}, work)


def read_split(path: Path) -> Split:
    cases = [SegmentationCase(name, (path,), path) for name in "abc"]
    return split_cases(path.parent, cases, 0)


def check_split(split: Split) -> None:
    names = [case.name for case in split.training + split.test]
    assert split.training and split.test and len(set(names)) == len(names) <= 3


def decoders() -> tuple[Decoder, ...]:
    yaml, json = text_mutator(YAML_WORDS), text_mutator(JSON_WORDS)
    task = {"refusals": (TrainingError, AnatomyError), "check": check_task, "mutate": yaml}
    text = {"refusals": (TrainingError,), "check": check_mapping, "mutate": json}
    arrays = {"refusals": (TrainingError,), "check": check_splits, "mutate": structure.npz, "seeds": seeds.npz}
    table = str(share_path("config/anatomy.yaml"))
    own = seeds.task_yaml("btcv", "brats2021", "medmnist_organ")
    demo, pretrain = seeds.task_yaml("demo_abdomen"), seeds.task_yaml("pretrain")
    return (
        from_file("task_yaml", ".yaml", task_table.load_task, table, seeds=own, **task),
        from_file("demo_task_yaml", ".yaml", tasks.load_task, seeds=demo, **task),
        from_file("pretrain_yaml", ".yaml", pretrain_task.load_pretrain_task, seeds=pretrain, **task),
        from_file("medmnist_npz", ".npz", partial(medmnist3d.read_splits, num_classes=2), **arrays),
        from_file("dataset", ".json", read_dataset, seeds=seeds.dataset_json, **text),
        from_file(
            "split",
            ".json",
            read_split,
            called="splits_final.json",
            refusals=(TrainingError,),
            check=check_split,
            mutate=text_mutator((*JSON_WORDS, '"a"', '"train"', '["a", "b"]', "[[]]", "[{}]")),
            seeds=seeds.splits,
        ),
        from_file("record", ".json", read_record, seeds=seeds.records, **text),
    )
