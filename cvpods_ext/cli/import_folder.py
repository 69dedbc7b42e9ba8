"""pods_import: an experiment folder of cvpods in the form of this package."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from cvpods_ext.cli.common import guarded, output_console, parser

EXAMPLES = """\
  pods_import ../old/mask_rcnn.res50.fpn.lvis.multiscale.1x mask_rcnn.res50.fpn.lvis.multiscale.1x
  pods_import old_folder new_folder       config.py and net.py of new_folder are read and changed like any other
then:
  cd new_folder; pods_train --smoke       try it in a minute
  pods_test --weights ../old_folder/log/model_final.pth
An old folder runs as it is, too: cd old_folder; pods_train --num-gpus 8"""
# By name, since nothing of this package depends on the module.
IMPORT_FOLDER = "cvpods_ext.compat.import_folder"


def main() -> None:
    """Entry point of pods_import."""
    flags = parser("pods_import", "Write an experiment folder of cvpods in the form of this package.", EXAMPLES)
    flags.add_argument("old", type=Path, metavar="OLD_FOLDER", help="folder whose config.py imports cvpods")
    flags.add_argument("new", type=Path, metavar="NEW_FOLDER", help="folder to write; must not exist")
    arguments = flags.parse_args()
    guarded("pods_import", lambda: _run(arguments.old, arguments.new))


def _run(old: Path, new: Path) -> None:
    from cvpods_ext.config.experiment import imports_cvpods
    from cvpods_ext.errors import ConfigError

    if not imports_cvpods(old):
        raise ConfigError(f"{old} is no folder of cvpods: its config.py does not import it")
    imported = importlib.import_module(IMPORT_FOLDER).import_folder(old, new)
    console = output_console()
    for line in imported.notes:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    losses = ", ".join(f"{name} {value:.6g}" for name, value in imported.losses.items())
    console.print(f"compared: equal losses on one batch with equal weights ({losses})", markup=False, highlight=False)
    console.print(f"written:  {new / 'config.py'}, {new / 'net.py'}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"next:     cd {os.path.relpath(new)}; pods_train --smoke", markup=False, highlight=False, soft_wrap=True
    )


if __name__ == "__main__":
    main()
