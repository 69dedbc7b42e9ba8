"""The table of published weights: real experiments, addresses that are fetched from, a source for each."""

from collections import Counter

import pytest
from shared import shared

from cvpods_ext.config import playground, published_weights
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.published_weights import of, stated
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.addresses import hub_file, is_address, url_of
from cvpods_ext.runtime.http import check_address

ROWS = published_weights.load()


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_an_experiment_of_the_playground_with_an_encrypted_address_and_a_source(name):
    row = ROWS[name]
    assert playground.find(name).name == name
    assert is_address(row.address)
    check_address(url_of(row.address))
    assert row.source
    assert row.sha256 == "" or len(row.sha256) == 64
    if row.address.startswith("hf://"):
        assert hub_file(row.address).revision == "main"


def test_only_a_test_in_another_way_shares_weights():
    shared_files = [address for address, count in Counter(row.address for row in ROWS.values()).items() if count > 1]
    assert shared_files == ["hf://Yuxin-CV/EVA-02/eva02/seg/eva02_L_ade_seg_upernet_sz512.pth"]


def test_addresses_of_vitdet_are_those_that_the_reference_configs_name():
    text = shared("golden/manifests_vitdet/configs_resolved.json").read_text()
    ours = [url_of(row.address) for row in ROWS.values() if "ViTDet" in row.address]
    assert len(ours) == 4
    assert all(url in text for url in ours)


def test_pre_trained_networks_are_the_files_that_their_folders_start_from():
    for name, row in ROWS.items():
        if "/eva02/pt/" in row.address:
            init = load_experiment(playground.find(name)).config.model.init
            assert hub_file(init) == hub_file(row.address)


def test_the_names_of_eva02_files_are_those_that_the_headers_of_their_folders_give():
    for name, row in ROWS.items():
        if "/eva02/det/" in row.address and "o365.lsj" not in name:
            header = (playground.find(name) / "config.py").read_text()
            assert f"`{row.address.rpartition('/')[2].removesuffix('.pth')}`" in header


def test_an_experiment_without_published_weights_lists_those_that_have_some():
    with pytest.raises(WeightsError) as caught:
        of("cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.fed.51k")
    assert "Did you mean cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.fed.50k" in str(caught.value)
    assert all(f"  {name}" in str(caught.value) for name in ROWS)


def test_facts_are_found_by_address():
    name, row = next(iter(ROWS.items()))
    assert stated(row.address) == of(name)
    assert stated("hf://a/b/c") is None
