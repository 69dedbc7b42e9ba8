"""A folder written for cvpods becomes an `Experiment`: its config translated, its network built from our modules."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cvpods_ext.compat.configs import AttributeDict, BaseClassificationConfig, BaseConfig
from cvpods_ext.compat.namespace import Namespace
from cvpods_ext.compat.stage_one import Watch, checkpoints_pass_for_present
from cvpods_ext.compat.stray_names import describe as describe_stray_names
from cvpods_ext.compat.translate_classification import CLASSIFICATION
from cvpods_ext.compat.translate_detection import DETECTION
from cvpods_ext.compat.translation import Translation
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.config.override import apply_overrides, flatten, override
from cvpods_ext.config.schema import Config
from cvpods_ext.errors import ConfigError, UserError

_OUR_SETTING = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*=")
_OLD_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")


@dataclass(frozen=True)
class OldExperiment(Experiment):
    """An old folder: `old` is its config after overrides in the old style, `translated` that config as ours."""

    old: BaseConfig = field(default_factory=BaseConfig)
    translated: Config | None = None
    namespace: Namespace | None = None

    @property
    def is_as_published(self) -> bool:
        """Never: nothing is written beside the files of the folder."""
        return False

    def build_model(self) -> Any:
        """Call the folder's `build_model(cfg)` with a config of its own each time; returns a torch module.

        ConfigError for a network that is none of ours, or of another number of classes than the training set.
        """
        from cvpods_ext.compat.network import build

        assert self.namespace is not None
        return build(self, self.namespace, self.settings_of_network())

    def weights_to_test(self, own: Path | None) -> Path | None:
        """The file of an override MODEL.WEIGHTS, else our own run's, else those of a run of cvpods."""
        from cvpods_ext.compat.old_run import final_weights
        from cvpods_ext.modeling.weights.fetch import obtain

        pairs, _ = split_overrides(self.overrides)
        if "MODEL.WEIGHTS" in pairs[::2] and (named := obtain(self.config.model.init, self.folder)) is not None:
            return named
        return own or final_weights(self._logs())

    def take_over_earlier_run(self) -> None:
        """Make the newest checkpoint of cvpods one that `--resume` continues, where we have none."""
        from cvpods_ext.compat.old_run import take_over

        take_over(self, self._logs())

    def _logs(self) -> list[Path]:
        from cvpods_ext.compat.old_run import log_folders

        return log_folders(self.folder, self.old.OUTPUT_DIR)

    def settings_of_network(self) -> AttributeDict:
        """A copy of the old config with what was overridden under our names."""
        config = deepcopy(self.old)
        before, now = flatten(self.translated or self.config), flatten(self.config)
        changed = {
            key.removeprefix("model."): value
            for key, value in now.items()
            if key.startswith("model.") and before[key] != value and key not in _OF_THE_ENGINE
        }
        translation_of(self.old).write_back(config, changed)
        config.MODEL.DEVICE = "cpu"  # the engine moves the model
        return config

    def notes(self) -> list[str]:
        """How the folder was read, for its user to see once."""
        stray = [line for path in sorted(self.folder.rglob("*.py")) for line in describe_stray_names(path, self.folder)]
        return [
            f"{self.folder} is a folder of cvpods; it runs on this engine as it is.",
            *translation_of(self.old).describe(self.old, base_of(self.old), flatten(self.config)),
            "batches of schedule.batch_size images are kept on any number of GPUs; nothing is scaled with it",
            *stray,
        ]


_OF_THE_ENGINE = ("model.init", "model.init_skip", "model.train_only", "model.detections_per_class")


def load(folder: Path, overrides: Sequence[str] = (), smoke: bool = False) -> OldExperiment:
    """Import config.py of an old `folder` without its side effects and translate it.

    `overrides` are KEY VALUE pairs of cvpods, `key=value` of ours, or both. Raises ConfigError.
    """
    pairs, assignments = split_overrides(overrides)
    namespace = Namespace(folder)
    old, watch = _import_config(folder, namespace)
    old = deepcopy(old)
    old.merge_from_list(pairs)
    if watch.changed and not (folder / old.MODEL.WEIGHTS).is_file() and "MODEL.WEIGHTS" not in pairs[::2]:
        raise ConfigError(
            f"{folder / 'config.py'} changes the weights of a first stage while it is imported, which is not done "
            f"here: nothing is read or written then. Write {old.MODEL.WEIGHTS or 'them'} once by a script of its own, "
            "or say MODEL.WEIGHTS FILE and, for tensors to be left out, model.init_skip=('cls_score',)"
        )
    translation = translation_of(old)
    translated = translation.convert(old, folder)
    lines = translation.untranslated(old, base_of(old))
    translated = replace(translated, cvpods=lines, folder=str(folder))
    config = override(translated, **translated.smoke_settings()) if smoke else translated
    config = replace(apply_overrides(config, assignments), base=type(translated)(cvpods=lines))
    return OldExperiment(folder, config, tuple(overrides), smoke, old, translated, namespace)


def translation_of(old: BaseConfig) -> Translation:
    """How configs of the task of `old` become ours."""
    return CLASSIFICATION if isinstance(old, BaseClassificationConfig) else DETECTION


def base_of(old: BaseConfig) -> Mapping[str, Any]:
    """The config that the folder's own class changes."""
    for base in type(old).__mro__[1:]:
        try:
            return base() if issubclass(base, BaseConfig) else {}
        except TypeError:  # one that asks for arguments
            continue
    return {}


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Pairs KEY VALUE (or KEY=VALUE) of cvpods, flat, and `key=value` of ours. ConfigError for a key alone."""
    pairs: list[str] = []
    assignments: list[str] = []
    rest = iter(words)
    for word in rest:
        key, separator, value = word.partition("=")
        if not _OLD_KEY.fullmatch(key):
            assignments.append(word)
        elif separator:
            pairs += [key, value]
        elif (following := next(rest, None)) is not None and not _OUR_SETTING.match(following):
            pairs += [key, following]
        else:
            raise ConfigError(f"the override {key} has no value: write {key} VALUE, or a key=value of ours")
    return pairs, assignments


def _import_config(folder: Path, namespace: Namespace) -> tuple[BaseConfig, Watch]:
    """The object `config` of config.py. Whatever the file raises becomes a ConfigError that says where."""
    path = folder / "config.py"
    if re.search(r"^\s*(import|from)\s+torch\b", path.read_text("utf-8", "replace"), re.MULTILINE):
        importlib.import_module("torch")  # so that its functions can be held back
    with namespace.inside(), checkpoints_pass_for_present() as watch:
        try:
            module = namespace.load("config")
        except (UserError, ImportError):
            raise
        except Exception as error:
            raise ConfigError(f"{line_of(error, folder) or path}: {type(error).__name__}: {error}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, BaseConfig):
        raise ConfigError(f"{path} must define `config` as an object of a config class of cvpods, got {config!r:.80}")
    return config, watch


def line_of(error: BaseException, folder: Path) -> str:
    """The last line of the folder that took part in `error`."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(folder):
            found = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
