"""How many parameters an experiment has by its name, counted by hand from the papers: no module of the package is used.

A convolution without norm has a bias; frozen batch norms hold buffers only, trainable ones two values a channel.
"""

CLASSES = {"lvis": 1230, "lvisv1": 1203, "coco": 80, "o365": 365, "box": 40}
BLOCKS = {"res50": (3, 4, 6, 3), "res101": (3, 4, 23, 3)}
GROUPED = {"resx101_32x8d": (32, 8), "resx101_64x4d": (64, 4)}
TRANSFORMERS = {
    "eva02_mini": (96, 4),
    "eva02_B": (768, 12),
    "eva02_L": (1024, 24),
    "mae_vit_B": (768, 12),
}  # width, blocks
POSITIONS = 1 + 14**2
# Group sizes of BAGS are four everywhere: one logit of foreground and four of others beside the classes.
BAGS_LOGITS = 5


def _conv(inputs: int, outputs: int, side: int, bias: bool = True, groups: int = 1) -> int:
    return inputs // groups * outputs * side**2 + bias * outputs


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _normed(inputs: int, outputs: int, side: int) -> int:
    return _conv(inputs, outputs, side, bias=False) + 2 * outputs


def _published_backbone(name: str) -> tuple[int, int]:
    """All parameters of a ResNet or ResNeXt without norms, and those of its frozen stem and first stage."""
    groups, width = GROUPED.get(name, (1, 64))
    stem = _conv(3, 64, 7, bias=False)
    total, frozen, inputs = stem, 0, 64
    for stage, blocks in enumerate(BLOCKS.get(name, BLOCKS["res101"])):
        outputs, inner = 256 * 2**stage, groups * width * 2**stage
        for block in range(blocks):
            total += _conv(inputs, inner, 1, bias=False) + _conv(inner, outputs, 1, bias=False)
            total += _conv(inner, inner, 3, bias=False, groups=groups)
            total += _conv(inputs, outputs, 1, bias=False) if block == 0 else 0
            inputs = outputs
        frozen = total if stage == 0 else frozen
    return total, frozen


def _narrow_backbone(third: int = 2) -> int:
    """Basic blocks with trainable norms, one in each stage but the third."""
    total, inputs = _conv(3, 16, 7, bias=False) + 2 * 16, 16
    for blocks, outputs in ((1, 32), (1, 64), (third, 96), (1, 128)):
        for block in range(blocks):
            total += _conv(inputs, outputs, 3, bias=False) + _conv(outputs, outputs, 3, bias=False) + 4 * outputs
            total += _conv(inputs, outputs, 1, bias=False) + 2 * outputs if block == 0 else 0
            inputs = outputs
    return total


def _transformer(width: int, blocks: int) -> int:
    """Patches of 16 pixels, positions, and blocks; queries, values and the output have a bias, keys have none."""
    hidden = width * 8 // 3
    attention = 4 * width**2 + 3 * width
    mlp = 2 * _linear(width, hidden) + 2 * hidden + _linear(hidden, width)
    return _conv(3, width, 16) + POSITIONS * width + blocks * (attention + mlp + 4 * width)


def _mae_vit(width: int, blocks: int, head: int = 64, window: int = 14, side: int = 64, globals_: int = 4) -> int:
    """As before, all with a bias and a plain MLP, and a row for every distance in each direction."""
    distances = (blocks - globals_) * (2 * window - 1) + globals_ * (2 * side - 1)
    attention = _linear(width, 3 * width) + _linear(width, width)
    mlp = _linear(width, 4 * width) + _linear(4 * width, width)
    each = attention + mlp + 4 * width
    return _conv(3, width, 16) + POSITIONS * width + blocks * each + 2 * distances * head


def _pyramid(stages: tuple[int, ...], width: int) -> int:
    return sum(_conv(channels, width, 1) + _conv(width, width, 3) for channels in stages)


def _simple_pyramid(channels: int, width: int) -> int:
    """Two upsamplings with a norm between them, one, none and pooling, each with two convolutions behind it."""
    half, quarter = channels // 2, channels // 4
    ends = sum(_normed(inputs, width, 1) + _normed(width, width, 3) for inputs in (quarter, half, channels, channels))
    return _conv(channels, half, 2) + 2 * half + _conv(half, quarter, 2) + _conv(channels, half, 2) + ends


def _proposals(width: int, convs: int) -> int:
    return convs * _conv(width, width, 3) + _conv(width, 3, 1) + _conv(width, 12, 1)


class _Sizes:
    """The numbers in a name."""

    def __init__(self, name: str) -> None:
        self.words = name.split(".")
        self.methods = set(self.words[5:])
        self.classes = next(CLASSES[word] for word in self.words if word in CLASSES)
        self.small = "box" in self.words
        self.transformer = TRANSFORMERS.get(self.words[1])
        self.cascade = self.words[0].startswith("cascade")
        self.stages = 3 if self.cascade else 1
        self.features = 256 if self.small else 1024

    def classifier(self) -> int:
        """Of one stage."""
        rows = self.classes + 1 + ("seesaw" in self.methods) + BAGS_LOGITS * ("bags" in self.methods)
        return rows * self.features + 1 if "cos_norm" in self.methods else rows * (self.features + 1)

    def calibration(self) -> int:
        return 2 * self.classes + self.features + 1 if "disalign" in self.methods else 0

    def boxes(self) -> int:
        """Head, classifier, calibration and regression of all stages."""
        width = 64 if self.small else 256
        head = _linear(49 * width, self.features)
        if self.transformer:
            head += (1 if self.small else 4) * _normed(width, width, 3)
        else:
            head += _linear(self.features, self.features)
        regression = _linear(self.features, 4 if self.cascade else 4 * self.classes)
        return self.stages * (head + self.classifier() + self.calibration() + regression)

    def masks(self) -> int:
        if "mask" not in self.words[0]:
            return 0
        width, convs = (64, 2) if self.small else (256, 4)
        one = _normed(width, width, 3) if self.transformer else _conv(width, width, 3)
        return convs * one + _conv(width, width, 2) + _conv(width, self.classes, 1)

    def trunk(self) -> tuple[int, int]:
        """Backbone, pyramid and proposals, and what of it is frozen."""
        width = 64 if self.small else 256
        if self.transformer:
            plain = self.words[1].startswith("mae")
            net = _mae_vit(*self.transformer) if plain else _transformer(*self.transformer)
            return net + _simple_pyramid(self.transformer[0], width) + _proposals(width, 2), 0
        if self.small:
            return _narrow_backbone() + _pyramid((32, 64, 96, 128), width) + _proposals(width, 1), 0
        total, frozen = _published_backbone(self.words[1])
        return total + _pyramid((256, 512, 1024, 2048), width) + _proposals(width, 1), frozen


class _QuerySizes:
    """The numbers of a DINO: width, width of its feed-forward layers, layers, heads, queries."""

    def __init__(self, name: str) -> None:
        self.words = name.split(".")
        self.classes = next(CLASSES[word] for word in self.words if word in CLASSES)
        self.backbone = self.words[1]
        if self.backbone == "narrow":
            self.width, self.hidden, self.encoders, self.decoders, self.heads, self.queries = 64, 256, 2, 3, 4, 60
        else:
            self.width, self.hidden, self.encoders, self.decoders, self.heads, self.queries = 256, 2048, 6, 6, 8, 900

    def trunk(self) -> tuple[int, int]:
        """Backbone and the maps behind it, and what of it is frozen."""
        width = self.width
        if self.backbone == "eva01":
            net, frozen = _eva01(), _conv(3, 1408, 16)
            return net + _finer_pyramid(1408, width) + 4 * _mapped(width, width, 1), frozen
        if self.backbone in TRANSFORMERS:
            channels, blocks = TRANSFORMERS[self.backbone]
            return _transformer(channels, blocks) + _finer_pyramid(channels, width) + 4 * _mapped(width, width, 1), 0
        if self.backbone == "narrow":
            net, frozen, stages = _narrow_backbone(), 0, (64, 96, 128)
        else:
            net, _ = _published_backbone(self.backbone)
            frozen, stages = _conv(3, 64, 7, bias=False), (512, 1024, 2048)
        maps = sum(_mapped(channels, width, 1) for channels in stages) + _mapped(stages[-1], width, 3)
        return net + maps, frozen

    def transformer(self) -> int:
        """Layers, learned queries, and the heads of each decoder layer and of the proposals."""
        width, norm = self.width, 2 * self.width
        samples = self.heads * 4 * 4  # levels and points
        deformable = _linear(width, 2 * samples) + _linear(width, samples) + 2 * _linear(width, width)
        feed_forward = _linear(width, self.hidden) + _linear(self.hidden, width)
        encoder = deformable + feed_forward + 2 * norm
        decoder = 4 * _linear(width, width) + deformable + feed_forward + 3 * norm
        once = 4 * width + self.queries * width + _linear(width, width) + norm  # levels, contents, proposals
        once += _linear(2 * width, width) + _linear(width, width) + norm + self.classes * width
        heads = _linear(width, self.classes) + 2 * _linear(width, width) + _linear(width, 4)
        return self.encoders * encoder + self.decoders * decoder + once + (self.decoders + 1) * heads


def _mapped(inputs: int, outputs: int, side: int) -> int:
    """A convolution with a bias, and a norm."""
    return _conv(inputs, outputs, side) + 2 * outputs


def _finer_pyramid(channels: int, width: int) -> int:
    """One upsampling, none and pooling, each with two convolutions behind it."""
    half = channels // 2
    ends = sum(_normed(inputs, width, 1) + _normed(width, width, 3) for inputs in (half, channels, channels))
    return _conv(channels, half, 2) + ends


def _eva01(width: int = 1408, hidden: int = 6144, blocks: int = 40, head: int = 88) -> int:
    """As EVA-02 with a plain MLP, and a row for every distance in each direction: 10 blocks see a map of 80 x 80."""
    attention = 4 * width**2 + 3 * width
    mlp = _linear(width, hidden) + _linear(hidden, width)
    distances = 30 * (2 * 16 - 1) + 10 * (2 * 80 - 1)
    return _conv(3, width, 16) + POSITIONS * width + blocks * (attention + mlp + 4 * width) + 2 * distances * head


def _upernet(name: str) -> int:
    """UPerNet on a narrow ResNet, or on a transformer, which has a class token and positions of the crop's size."""
    words = name.split(".")
    if words[1] == "narrow":
        return _narrow_backbone(third=1) + _upernet_heads((32, 64, 96, 128), 64, 32, 41)
    width, blocks = TRANSFORMERS[words[1]]
    side = int(words[4].removeprefix("crop"))
    channels, auxiliary = (1536, 1536) if side == 640 else (width, 256)
    positions = (1 + (side // 16) ** 2 - POSITIONS) * width + width
    scales = 3 * _conv(width, width, 2) + 2 * width
    return _transformer(width, blocks) + positions + scales + _upernet_heads((width,) * 4, channels, auxiliary, 150)


def _upernet_heads(inputs: tuple[int, ...], channels: int, auxiliary: int, classes: int) -> int:
    """The decoder on four maps, and the auxiliary head on the third."""
    pooled = 4 * _normed(inputs[3], channels, 1) + _normed(inputs[3] + 4 * channels, channels, 3)
    levels = sum(_normed(each, channels, 1) for each in inputs[:3]) + 3 * _normed(channels, channels, 3)
    fused = _normed(4 * channels, channels, 3) + _conv(channels, classes, 1)
    return pooled + levels + fused + _normed(inputs[2], auxiliary, 3) + _conv(auxiliary, classes, 1)


def _image_classifier(name: str) -> int:
    """EVA-02 (without a bias on keys) and, unless it is a pre-trained trunk, a norm and a head for 1,000 classes."""
    size, patch, classes = name.split("-")[1], int(name.split("-")[2].split("_")[0].removeprefix("p")), 1000
    width, depth, hidden, side = {
        "tiny": (192, 12, 512, 336),
        "small": (384, 12, 1024, 336),
        "base": (768, 12, 2048, 448),
        "large": (1024, 24, 2730, 448),
    }[size]
    trunk = "in1k" not in name
    side = 224 if trunk else side
    tables = width * (3 * patch**2 + 1) + width * ((side // patch) ** 2 + 2)  # patches, positions, class token
    attention = 4 * width**2 + 3 * width
    gated = 3 * width * hidden + 2 * hidden + width
    norms = 4 * width + (2 * hidden if size in ("base", "large") else 0)
    return tables + depth * (attention + gated + norms) + (0 if trunk else 2 * width + classes * (width + 1))


def _shapes_classifier(name: str) -> tuple[int, int]:
    """A bottleneck in each of three stages and a head for 20 classes; values that its training changes."""
    total, inputs, width, classes = _normed(3, 16, 7), 16, 128, 20
    for inner, outputs in ((16, 32), (32, 64), (64, 128)):
        total += _normed(inputs, inner, 1) + _normed(inner, inner, 3) + _normed(inner, outputs, 1)
        total += _normed(inputs, outputs, 1)  # the shortcut
        inputs = outputs
    words = name.split(".")
    total += classes * width + 1 if "cos_norm" in words else classes * (width + 1)
    if "disalign" in words:
        return total + 2 * classes + width + 1, 2 * classes + width + 1
    return total, total


def expected_parameters(name: str) -> int:
    """All parameters of the experiment."""
    if name.startswith("dino."):
        return _QuerySizes(name).trunk()[0] + _QuerySizes(name).transformer()
    if name.startswith("upernet."):
        return _upernet(name)
    if name.startswith("eva02-"):
        return _image_classifier(name)
    if ".shapes." in name:
        return _shapes_classifier(name)[0]
    sizes = _Sizes(name)
    return sizes.trunk()[0] + sizes.boxes() + sizes.masks()


def expected_trained(name: str) -> int:
    """Those that its training changes."""
    if name.startswith("dino."):
        return expected_parameters(name) - _QuerySizes(name).trunk()[1]
    if name.startswith("upernet."):
        return _upernet(name)
    if name.startswith("eva02-"):
        return _image_classifier(name)
    if ".shapes." in name:
        return _shapes_classifier(name)[1]
    sizes = _Sizes(name)
    if "disalign" in sizes.methods:
        return sizes.stages * sizes.calibration()
    if "bags" in sizes.methods:
        return sizes.classifier()
    return expected_parameters(name) - sizes.trunk()[1]
