"""The rules under which the numbers of a detection benchmark compare: one table for configs, evaluators and cards.

Imports nothing, so that every layer may read it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a benchmark's official evaluator counts, and how its published models are tested.

    Of the detections of an image the best `per_image` over all categories count, or the best `per_category` of each;
    None is no such limit. The evaluators know no score threshold; `score_threshold` is the highest one that published
    models of the benchmark are tested with, and `kept_by_nms` is how many detections of an image those with hard NMS
    keep. An object is small below the first of `areas` (pixels) and large above the second; its area is the one in the
    annotation file.
    """

    title: str
    splits: tuple[str, ...]
    per_image: int | None
    per_category: int | None
    score_threshold: float
    kept_by_nms: int
    categories: str
    areas: tuple[float, float] = (32.0**2, 96.0**2)

    def describe(self) -> str:
        """The limit and the categories, in words for a card."""
        if self.per_image is not None:
            limit = f"the best {self.per_image} detections of an image count"
        else:
            limit = f"the best {self.per_category} detections of an image and category count"
        return f"{self.title}: {limit}; evaluated are {self.categories}"


# The LVIS paper (https://arxiv.org/abs/1908.03195, section 3) and the challenge rules at https://www.lvisdataset.org.
LVIS = Protocol(
    title="LVIS",
    splits=("lvis_v1_val", "lvis_v0.5_val"),
    per_image=300,
    per_category=None,
    score_threshold=0.02,
    kept_by_nms=300,
    categories="in each image the categories annotated in it or verified to be absent",
)

# https://cocodataset.org/#detection-eval; Objects365 is evaluated with the same code.
COCO = Protocol(
    title="COCO",
    splits=("coco_2017_val", "objects365_val"),
    per_image=None,
    per_category=100,
    score_threshold=0.05,
    kept_by_nms=100,
    categories="all categories in every image",
)


def protocol_of(split: str) -> Protocol | None:
    """The protocol of a known test set; data of one's own follow LVIS's or COCO's rules by what is in their file."""
    return next((protocol for protocol in (LVIS, COCO) if split in protocol.splits), None)
