import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cvpods_ext.modeling.detection.mask_head import MaskHead, MaskPredictor, NormalizedMaskPredictor, mask_loss


def head(predictor, convs=1):
    torch.manual_seed(0)
    return MaskHead(6, (4, 8), predictor, width=6, convs=convs, resolution=4)


def inputs(count):
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(2, 6, 16 // 2**i, 16 // 2**i, generator=generator) for i in range(2)]
    corner = torch.rand(count, 2, generator=generator) * 30
    boxes = torch.cat((corner, corner + 5 + 20 * torch.rand(count, 2, generator=generator)), dim=1)
    return features, boxes, torch.arange(count) % 2, torch.arange(count) % 5


@pytest.mark.parametrize("count", [1, 7, 70])
def test_logits_equal_a_full_transposed_convolution_and_a_1x1_convolution(count):
    model = head(MaskPredictor(6, 5))
    features, boxes, image, labels = inputs(count)
    x = model.mask_fcn1(model.pooler(features, boxes, image))
    every_class = F.conv2d(F.relu(model.deconv(x)), model.predictor.weight, model.predictor.bias)
    expected = every_class[torch.arange(count), labels]
    with torch.no_grad():  # in parts
        torch.testing.assert_close(model(features, boxes, image, labels), expected)
    torch.testing.assert_close(model(features, boxes, image, labels), expected)


def test_gradients_equal_those_of_the_full_convolutions():
    model = head(MaskPredictor(6, 5)).double()
    x, labels = torch.randn(9, 6, 4, 4, dtype=torch.float64), torch.arange(9) % 5
    target = torch.rand(9, 8, 8, dtype=torch.float64)
    parameters = [model.deconv.weight, model.deconv.bias, model.predictor.weight, model.predictor.bias]
    full = F.conv2d(F.relu(model.deconv(x)), model.predictor.weight, model.predictor.bias)[torch.arange(9), labels]
    expected = torch.autograd.grad((full * target).sum(), parameters)
    found = torch.autograd.grad((model._upsample(x, labels).double() * target).sum(), parameters)
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_class_serves_all_labels_if_class_agnostic():
    model = head(MaskPredictor(6, 1))
    features, boxes, image, labels = inputs(5)
    torch.testing.assert_close(
        model(features, boxes, image, labels), model(features, boxes, image, torch.zeros_like(labels))
    )


def test_normalised_logits_are_scaled_cosines_of_pixel_and_class_plus_its_bias():
    predictor = NormalizedMaskPredictor(6, 5, scale=20.0)
    nn.init.normal_(predictor.bias)
    pixels, labels = torch.randn(3, 1, 6, 9), torch.tensor([4, 0, 2])
    logits = predictor(pixels, labels)
    expected = 20 * F.cosine_similarity(pixels[1, 0, :, 7], predictor.weight[0, :, 0, 0], dim=0) + predictor.bias[0]
    torch.testing.assert_close(logits[1, 0, 7], expected, rtol=1e-4, atol=1e-4)


def test_a_normalised_predictor_has_the_names_and_the_start_of_mmdetection():
    torch.manual_seed(0)
    predictor = NormalizedMaskPredictor(256, 1203)
    shapes = {name: tuple(value.shape) for name, value in predictor.state_dict().items()}
    assert shapes == {"weight": (1203, 256, 1, 1), "bias": (1203,)}
    assert predictor.weight.std().item() == pytest.approx((2 / 1203) ** 0.5, rel=0.01)  # Kaiming, fan out
    assert not predictor.bias.any()


def test_published_names_and_shapes():
    shapes = {k: tuple(v.shape) for k, v in head(MaskPredictor(6, 5), convs=2).state_dict().items()}
    assert shapes == {
        "mask_fcn1.weight": (6, 6, 3, 3),
        "mask_fcn1.bias": (6,),
        "mask_fcn2.weight": (6, 6, 3, 3),
        "mask_fcn2.bias": (6,),
        "deconv.weight": (6, 6, 2, 2),
        "deconv.bias": (6,),
        "predictor.weight": (5, 6, 1, 1),
        "predictor.bias": (5,),
    }


def test_no_instances_give_no_masks_and_a_loss_of_zero_that_reaches_all_parameters():
    model = head(MaskPredictor(6, 5))
    features, boxes, image, labels = inputs(4)
    logits = model(features, boxes[:0], image[:0], labels[:0])
    assert logits.shape == (0, 8, 8)
    loss = mask_loss(logits, torch.zeros(0, 8, 8))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in model.parameters())


def test_any_module_of_the_same_call_may_predict():
    class Constant(nn.Module):
        def forward(self, pixels, labels):
            return labels[:, None, None].expand(-1, pixels.shape[1], pixels.shape[3])

    features, boxes, image, labels = inputs(3)
    assert torch.equal(head(Constant())(features, boxes, image, labels)[:, 0, 0], labels.float())
