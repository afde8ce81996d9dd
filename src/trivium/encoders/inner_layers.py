"""Which inner layers of the frozen networks are kept beside the pooled features, for heads to learn from.

A last layer was trained for one task and drops what that task does not need: colours, textures, counts, single words.
The layers before it still have them. Chosen on Flickr8k's development split: with these, text to image found R@1
26.6 % instead of 22.3 % (docs/benchmarks.md, "What the heads are given"). Of sounds none helped.

Nothing heavy is imported here: networks give these outputs, backbones name them.
"""

from collections.abc import Mapping

# Of EfficientNet-Lite0: the group of blocks, numbered as timm does; each channel's mean and maximum over the picture.
IMAGE_GROUPS: Mapping[str, int] = {"blocks4": 4, "blocks5": 5, "blocks6": 6}
IMAGE_LAYERS: Mapping[str, int] = {"blocks4": 2 * 112, "blocks5": 2 * 192, "blocks6": 2 * 320}  # and their width
# Of MiniLM: BERT's hidden states, 0 is what the words are before the first layer; each number's mean over the tokens.
TEXT_STATES: Mapping[str, int] = {"state0": 0, "state5": 5}
TEXT_MAXIMUM = "maximum"  # and of the last one the maximum over the tokens
TEXT_LAYERS: Mapping[str, int] = {**dict.fromkeys(TEXT_STATES, 384), TEXT_MAXIMUM: 384}
