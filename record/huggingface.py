"""GPT-2's weights in Hugging Face's form: a folder with config.json and model.safetensors.

The mathematics is the same, the arrangement is not. Theirs keeps the matrix of a linear map as
(inputs, outputs), the transpose of ours; ours pads the rows of the embedding to a multiple of 64;
the head is the embedding in both. Factors of muP go into the weights, which then are those of a
standard GPT-2. This file alone knows how to go from one to the other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs import ConfigError, Model
from configs.size import UNIT
from storage import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PREFIX = "transformer."
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
_SHAPE = {  # theirs: ours
    "vocab_size": "vocab_size",
    "n_positions": "block_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}
_FIXED: dict[str, tuple[Any, ...]] = {  # what our GPT-2 has, by their names; None: not given
    "activation_function": (None, "gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (None, 1e-5),
    "scale_attn_weights": (None, True),
    "scale_attn_by_inverse_layer_idx": (None, False),
    "tie_word_embeddings": (None, True),
}


def folder_of(source: str) -> Path:
    """The folder with the weights of `source`: itself, or the hub's copy, downloaded once.

    Raises:
        ConfigError: it is no such folder, and no name on the hub; one line.
    """
    here = Path(source)
    if not here.is_dir():
        here = _downloaded(source)
    if not (here / CONFIG).is_file() or not any(here.glob("*.safetensors")):
        raise ConfigError(
            f"{here} holds no {CONFIG} with {WEIGHTS}; give a folder that"
            " transformers' save_pretrained or export.py has written"
        )
    return here


def _downloaded(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"'{source}' is neither a folder here nor a model that can be had from the Hugging"
            f" Face hub ({why}); give a folder with {CONFIG} and {WEIGHTS}"
        ) from None


def content(folder: Path) -> str:
    """16 hex digits: a hash of the files with the weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def shape_of(folder: Path) -> Model:
    """The shape of the model in a folder.

    Raises:
        ConfigError: it is no GPT-2, or one that differs in more than its shape; one line.
    """
    given = read_json(folder / CONFIG) or {}
    if given.get("model_type") != "gpt2":
        raise ConfigError(f"{folder} holds a model of type '{given.get('model_type')}', not gpt2")
    if missing := [key for key in _SHAPE if key not in given]:
        raise ConfigError(f"{folder / CONFIG} has no {', '.join(missing)}")
    fixed = _FIXED | {"n_inner": (None, 4 * given["n_embd"])}
    for key, valid in fixed.items():
        if (value := given.get(key)) not in valid:
            raise ConfigError(f"{folder}: {key} = {value}, but GPT-2 here has {valid[-1]}")
    return Model(**{ours: given[theirs] for theirs, ours in _SHAPE.items()})


def read(folder: Path) -> dict[str, Any]:
    """The weights in a folder, float32, by our names: a state_dict of train_gpt2.GPT.

    Raises:
        ConfigError: a file cannot be read, or a tensor is missing or has another shape; one line.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    shape, theirs = shape_of(folder), {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            theirs.update(load_file(path))
        except SafetensorError as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
    theirs = {name.removeprefix(_PREFIX): value for name, value in theirs.items()}
    state = {}
    for name, sizes in _sizes(shape):
        if name not in theirs:
            raise ConfigError(f"{folder} has no tensor '{name}'; it is not a whole GPT-2")
        value = theirs[name].float()
        value = value.mT.contiguous() if name.endswith(_TRANSPOSED) else value
        if tuple(value.shape) != sizes:
            raise ConfigError(f"{folder}: '{name}' has shape {tuple(value.shape)}, not {sizes}")
        state[name] = value
    rows = -(-shape.vocab_size // UNIT) * UNIT
    padded = torch.zeros(rows, shape.n_embd)
    padded[: shape.vocab_size] = state["wte.weight"]
    return state | {"wte.weight": padded}


def _standard(shape: Model, name: str, value: Any) -> Any:
    """The tensor `name` with the factors of muP in it: the same logits without them."""
    if shape.attention_scale is not None and ".c_attn." in name:
        value = value.clone()
        value[: shape.n_embd] *= shape.attention_scale * math.sqrt(shape.n_embd / shape.n_head)
    return value * shape.readout if name.startswith("ln_f.") else value


def write(folder: Path, shape: Model, state: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    """Write `state`, a state_dict of train_gpt2.GPT, so that transformers loads it.

    Of a model with muP the weights of a standard one with the same logits are written.

    note: more keys for config.json, such as where the weights come from.

    Raises:
        OSError: the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    theirs = {}
    for name, _ in _sizes(shape):
        value = _standard(shape, name, state[name].float().cpu())
        value = value[: shape.vocab_size] if name == "wte.weight" else value
        value = value.mT if name.endswith(_TRANSPOSED) else value
        theirs[_PREFIX + name] = value.contiguous()
    table = {theirs: getattr(shape, ours) for theirs, ours in _SHAPE.items()}
    fixed = {key: valid[1] for key, valid in _FIXED.items()}
    head = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "torch_dtype": "float32"}
    end = shape.vocab_size - 1  # the end of a text is the last id, also in vocabularies of ours
    ends = {"bos_token_id": end, "eos_token_id": end}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file(theirs, folder / WEIGHTS, {"format": "pt"})
    except SafetensorError as error:  # which is no OSError, also where the disk is full
        raise OSError(str(error)) from None
    text = json.dumps({**head, **table, **fixed, **ends, **note}, indent=2)
    (folder / CONFIG).write_text(text + "\n")


def _sizes(shape: Model) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and sizes of each tensor of our model, without padding."""
    c = shape.n_embd
    yield "wte.weight", (shape.vocab_size, c)
    yield "wpe.weight", (shape.block_size, c)
    linear = {
        "attn.c_attn": (3 * c, c),
        "attn.c_proj": (c, c),
        "mlp.c_fc": (4 * c, c),
        "mlp.c_proj": (c, 4 * c),
    }
    for i in range(shape.n_layer):
        for name, sizes in linear.items():
            yield f"h.{i}.{name}.weight", sizes
            yield f"h.{i}.{name}.bias", sizes[:1]
        for norm in ("ln_1", "ln_2"):
            yield f"h.{i}.{norm}.weight", (c,)
            yield f"h.{i}.{norm}.bias", (c,)
    yield "ln_f.weight", (c,)
    yield "ln_f.bias", (c,)
