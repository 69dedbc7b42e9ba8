"""results.json: one experiment's metrics with the settings and the provenance that they hold under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import read_json, write_json
from cvpods_ext.runtime.records import is_finite


@dataclass(frozen=True, kw_only=True)
class Results:
    """Metrics by family and name, None where there was no ground truth.

    `settings`: evaluator, maximum detections and what else a comparison must know; `changes`: config keys that differ
    from the base, each as [base value, value here]; `provenance`: version, commit, hashes, seed, weights, devices.
    """

    experiment: str
    dataset: str
    metrics: Mapping[str, Mapping[str, float | None]]
    task: str = "detection"  # as in Config.task; files before there were several tasks do not say it
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, list[Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_imported(self) -> bool:
        """Whether the detections are another program's, so that no experiment folder made them."""
        return "detections" in self.provenance

    @property
    def content(self) -> str:
        """Digest of the weights, or of imported detections: equal ones were predicted once; "" where unknown."""
        found = self.provenance.get("detections_sha256") or self.provenance.get("weights_sha256")
        return found if isinstance(found, str) else ""

    def write(self, path: Path) -> None:
        """Write atomically; a metric that is not a finite number or None is a DataError."""
        content = asdict(self)
        _check(content, Path(path))
        write_json(path, content)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read and check; keys that this version does not know are a DataError, since they would be lost silently."""
        path = Path(path)
        try:
            content = read_json(path)
        except DataError as error:
            if not path.exists():
                raise DataError(f"{path} is missing. Run pods_test in its experiment folder.") from None
            raise DataError(f"{error}. Run pods_test again.") from None
        _check(content, path)
        return cls(**content)


def _check(content: Any, path: Path) -> None:
    """Raise a DataError that names the file and the key, unless `content` keeps the contract of results.json."""
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not the results of one experiment.")
    known = set(Results.__dataclass_fields__)
    missing = [key for key in ("experiment", "dataset", "metrics") if key not in content]
    unknown = sorted(set(content) - known)
    if missing or unknown:
        raise DataError(f"{path}: missing keys {missing}, unknown keys {unknown}. Run pods_test again.")
    for key, kind in (("experiment", str), ("dataset", str), ("task", str)):
        if not isinstance(content.get(key, ""), kind):
            raise DataError(f"{path}: {key} must be text, got {content[key]!r}. Run pods_test again.")
    for key in known - {"experiment", "dataset", "task"}:
        if not isinstance(content.get(key, {}), dict):
            raise DataError(f"{path}: {key} must be an object, got {content[key]!r}. Run pods_test again.")
    for family, metrics in content["metrics"].items():
        if not isinstance(metrics, dict):
            raise DataError(f"{path}: metrics.{family} must be an object, got {metrics!r}. Run pods_test again.")
        for name, value in metrics.items():
            if value is not None and not is_finite(value):
                raise DataError(
                    f"{path}: metrics.{family}.{name} must be a number or null, got {value!r:.80}. Run pods_test again."
                )
