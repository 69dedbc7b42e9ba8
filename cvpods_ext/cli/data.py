"""pods_data: check and fetch data sets, count classes, look at the long tail, make a set. Help imports no torch."""

from __future__ import annotations

from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.cli.data_counts import add_num_shots, add_stats
from cvpods_ext.cli.data_doctor import add_doctor
from cvpods_ext.cli.data_download import add_download
from cvpods_ext.cli.data_files import add_label_maps, add_synth, add_synth_classes

EXAMPLES = """\
  pods_data doctor                                      all that this experiment needs; elsewhere: all known sets
  pods_data doctor lvis_v1_train --decode               one data set, every image decoded
  pods_data doctor my_train.json --images my_images     data of your own in COCO or LVIS layout
  pods_data download lvis_v1 --dry-run                  what LVIS v1 needs, how large it is, what is here already
  pods_data download lvis_v1 --to /data/sets --yes      fetch and unpack it; typed again it goes on where it stopped
  pods_data num-shots my_train.json --out num_shots.json
                                                        class counts for losses and calibration (data.num_shots=...)
  pods_data stats lvis_v1_train --threshold 0.001       the long tail, and what repeat-factor sampling makes of it
  pods_data label-maps my.json --out label_maps         masks as label maps, for semantic segmentation
  pods_data synth datasets --num-classes 40             a small long-tailed set to try everything on
  pods_data synth flat --spread 0 --min-images 20       the same classes, equally frequent
  pods_data synth-classes datasets                      a small long-tailed set for image classification

a data set is one of: lvis_v1_train lvis_v1_val lvis_v0.5_train lvis_v0.5_val coco_2017_train coco_2017_val,
or the path of a json file. Data sets are looked for in $PODS_DATASETS, else in ./datasets here or above."""


def main() -> None:
    """Entry point of pods_data."""
    flags = parser("pods_data", "Check, fetch, count and make data sets.", EXAMPLES)
    commands = flags.add_subparsers(
        dest="command",
        required=True,
        metavar="doctor | download | num-shots | stats | label-maps | synth | synth-classes",
    )
    add_doctor(commands)
    add_download(commands)
    add_num_shots(commands)
    add_stats(commands)
    add_label_maps(commands)
    add_synth(commands)
    add_synth_classes(commands)
    arguments = flags.parse_args()
    guarded("pods_data", lambda: arguments.run(arguments))


if __name__ == "__main__":
    main()
