"""The names of an AltCLIP's tensors."""

import re

KEY_MAPPING = {
    r"^text_model\.roberta\.encoder\.layers\.": "text_model.roberta.encoder.layer.",
    r"^vision_model\.encoder\.layer\.": "vision_model.encoder.layers.",
}
"""Published AltCLIPs call XLM-R's layers `layer.` and the vision tower's `layers.`; transformers 5 reads both as
`layers.` and writes both as `layer.`."""

TEXT_TOWER = "text_model."


def published_name(name: str) -> str:
    """The name of a tensor in published AltCLIPs.

    Example:
        >>> published_name("text_model.roberta.encoder.layers.0.output.dense.bias")
        'text_model.roberta.encoder.layer.0.output.dense.bias'
    """
    for pattern, replacement in KEY_MAPPING.items():
        name = re.sub(pattern, replacement, name)
    return name
