"""What is read of config.py's docstring, and what is left of it in a table."""

from cvpods_ext.report import header

CONFIG = '''"""Cosine classifier on
Mask R-CNN R50-FPN, COCO (the authors' `model`).

Paper:     One, https://arxiv.org/abs/1
Question:  does it lift
           rare classes?
Run:       pods_train
"""
raise AssertionError("a header is read without running the file")
'''


def test_a_header_is_one_sentence_and_named_lines(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    found = header.read(tmp_path)
    assert found.summary == "Cosine classifier on Mask R-CNN R50-FPN, COCO (the authors' `model`)."
    assert found.question == "does it lift rare classes?"
    assert found.fields["Paper"] == "One, https://arxiv.org/abs/1"
    (tmp_path / "config.py").write_text("config = None\n")
    assert header.read(tmp_path) == header.Header("", {})


def test_a_method_is_what_the_others_do_not_say():
    summaries = [
        "Mask R-CNN R50-FPN, COCO.",
        "Cosine classifier on Mask R-CNN R50-FPN, COCO.",
        "DisAlign on a cosine classifier, Mask R-CNN R50-FPN, COCO.",
        "FRACAL after training of Mask R-CNN R50-FPN, COCO.",
        "Repeat-factor sampling: rare images are seen more often.",
        "Seesaw loss on Mask R-CNN R50-FPN, COCO (the authors' `seesaw`).",
    ]
    assert header.methods(summaries) == [
        "",
        "Cosine classifier",
        "DisAlign on a cosine classifier",
        "FRACAL after training",
        "Repeat-factor sampling",
        "Seesaw loss",
    ]
    assert header.methods(summaries[:1]) == ["Mask R-CNN R50-FPN, COCO"]
    assert header.methods([]) == []
