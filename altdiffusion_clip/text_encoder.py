"""The multilingual text encoder: XLM-RoBERTa with a projection, and its two outputs.

The conditioning is a sequence for a UNet's cross-attention. The pooled output is one vector per prompt for a
CLIP head. Both come from one forward pass over one set of weights. Sources: AltCLIP
(arXiv 2211.06679), AltDiffusion (arXiv 2308.09991), and the public checkpoints of both.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import XLMRobertaConfig, XLMRobertaModel
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaPreTrainedModel
from transformers.utils import ModelOutput

from altdiffusion_clip.checkpoints.model_ids import component_folder
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors, weight_files
from altdiffusion_clip.offloading import WORD_EMBEDDINGS, OffloadedEmbedding, offloaded_in_place_of


@strict
class RobertaSeriesConfig(XLMRobertaConfig):
    """Configuration of `RobertaSeriesModelWithTransformation`: XLM-RoBERTa's plus the projection's.

    Args:
        project_dim: width of both outputs; the UNet's `cross_attention_dim`.
        has_pre_transformation: as in m18: condition on the penultimate layer, through its own projection.
        has_pre_LN: whether the checkpoint has the LayerNorm before the pooled projection. `from_pretrained` sets it to
            False for the m2 and m9 text encoders that were published without it.
        use_attention_mask: whether diffusers' pipelines pass the attention mask.
        pooler_fn: "cls", the only published value.
        learn_encoder: only kept because published configs have it.

    Example:
        >>> RobertaSeriesConfig(project_dim=768).model_type
        'xlm-roberta'
    """

    vocab_size: int = 250002
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    project_dim: int = 768
    has_pre_transformation: bool = False
    has_pre_LN: bool = True
    use_attention_mask: bool = True
    pooler_fn: str = "cls"
    learn_encoder: bool = False


@dataclass
class TransformationModelOutput(ModelOutput):
    """Both outputs for a batch of prompts.

    Attributes:
        projection_state: conditioning, float (batch, length, project_dim). It comes first because diffusers' pipelines
            take element 0.
        last_hidden_state: XLM-RoBERTa's, float (batch, length, hidden_size).
        pooler_output: pooled output, float (batch, project_dim); None if the checkpoint has no `pre_LN`.
        hidden_states: of the embeddings and of each layer, each float (batch, length, hidden_size), if asked
            for.
        attentions: of each layer, each float (batch, heads, length, length), if asked for.
        conditioning_states: the hidden states up to the conditioning one, if hidden states are asked for. They come
            last because diffusers' pipelines count `clip_skip` back from the end of the last element.
    """

    projection_state: Tensor | None = None
    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    conditioning_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class ConditioningEnd:
    """The `text_encoder.text_model` that diffusers' pipelines, and tools written for CLIP, look for.

    Attributes:
        final_layer_norm: turns a hidden state into conditioning: float (batch, length, hidden_size) to (batch, length,
            project_dim). In CLIP that is a LayerNorm.
        encoder: XLM-RoBERTa's.
        embeddings: XLM-RoBERTa's.
    """

    final_layer_norm: Callable[[Tensor], Tensor]
    encoder: nn.Module
    embeddings: nn.Module


class RobertaSeriesModelWithTransformation(XLMRobertaPreTrainedModel):
    """XLM-RoBERTa with AltCLIP's projection, a drop-in conditioning encoder for Stable Diffusion.

    However far prompts are padded, only the longest of the batch plus one padding token is computed, and the last row
    is repeated. All padding rows are equal at every layer, because they have the same token and position and see
    the same keys. Outputs and gradients equal those of the padded run.

    Args:
        config: the configuration.
        offload_embeddings: leave word embeddings in their file (see `altdiffusion_clip.offloading`); `from_pretrained`
            sets them.

    Example:
        >>> config = RobertaSeriesConfig(
        ...     vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        ...     project_dim=24,
        ... )
        >>> model = RobertaSeriesModelWithTransformation(config).eval()
        >>> ids = torch.tensor([[0, 5, 6, 2] + 73 * [1]])
        >>> outputs = model(ids, attention_mask=(ids != 1).long())
        >>> outputs.projection_state.shape, outputs.pooler_output.shape
        (torch.Size([1, 77, 24]), torch.Size([1, 24]))
    """

    config_class = RobertaSeriesConfig
    config: RobertaSeriesConfig
    # The old class kept XLM-RoBERTa's unused pooler, and AltCLIP's stage files contain a scale.
    _keys_to_ignore_on_load_unexpected = [r"pooler", r"logit_scale", r"position_ids"]

    def __init__(self, config: RobertaSeriesConfig, offload_embeddings: bool = False) -> None:
        super().__init__(config)
        self.roberta = XLMRobertaModel(config, add_pooling_layer=False)
        if offload_embeddings:
            self.roberta.set_input_embeddings(offloaded_in_place_of(self.roberta.get_input_embeddings()))
            self._keys_to_ignore_on_load_unexpected = [*self._keys_to_ignore_on_load_unexpected, WORD_EMBEDDINGS]
        self.transformation = nn.Linear(config.hidden_size, config.project_dim)
        self.transformation_pre: nn.Linear | None = None
        if config.has_pre_transformation:
            self.transformation_pre = nn.Linear(config.hidden_size, config.project_dim)
        self.pre_LN: nn.LayerNorm | None = None
        if config.has_pre_LN or config.has_pre_transformation:
            self.pre_LN = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Self:
        """Loads a text encoder.

        Args:
            pretrained_model_name_or_path: a folder or hub id, with `subfolder="text_encoder"` for that of a pipeline.
            *args: as in transformers.
            **kwargs: as in transformers (`dtype`, `variant`, `device_map`, `quantization_config`, ...). With
                `offload_embeddings=True` the word embeddings, almost half of the weights, stay in their file,
                memory-mapped; outputs are the same.
        """
        name = pretrained_model_name_or_path
        loaded = super().from_pretrained(name, *args, **kwargs)
        if kwargs.get("offload_embeddings"):
            model = loaded[0] if kwargs.get("output_loading_info") else loaded
            if name is None:
                table = kwargs["state_dict"][f"{WORD_EMBEDDINGS}.weight"]
            else:
                files = weight_files(component_folder(name, **kwargs), kwargs.get("variant"))
                table = CheckpointTensors(*files)[f"{WORD_EMBEDDINGS}.weight"]
            model.attach_embeddings(table)
        return loaded

    def attach_embeddings(self, table: Tensor) -> None:
        """Gives an encoder made with `offload_embeddings=True` its word embeddings.

        Args:
            table: (vocab_size, hidden_size), on the CPU or memory-mapped; shared, not copied.
        """
        embeddings = self.roberta.get_input_embeddings()
        if not isinstance(embeddings, OffloadedEmbedding):
            raise ValueError("this text encoder has its word embeddings itself; load it with offload_embeddings=True")
        embeddings.attach(table)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TransformationModelOutput | tuple[Tensor, ...]:
        """Encodes prompts.

        Args:
            input_ids: int64 (batch, length), padded on the right with `config.pad_token_id`.
            attention_mask: (batch, length), 1 for tokens and 0 for padding. Without it padding is attended
                to, as published pipelines with `use_attention_mask` False do.
            token_type_ids: as XLMRobertaModel's.
            position_ids: as XLMRobertaModel's.
            inputs_embeds: float (batch, length, hidden_size), in place of `input_ids`.
            output_attentions: also return the attention weights (needs the "eager" attention).
            output_hidden_states: also return all hidden states.
            return_dict: return a `TransformationModelOutput` (default) or a tuple without the Nones.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds` are given, or there are more
                tokens than positions.
        """
        config = self.config
        want_hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        want_attentions = config.output_attentions if output_attentions is None else output_attentions
        self._check_length(input_ids, inputs_embeds)

        length, kept = None, None
        plain = inputs_embeds is None and position_ids is None and token_type_ids is None and not want_attentions
        if plain and input_ids is not None:
            kept = self._columns_to_keep(input_ids, attention_mask)
            if kept is not None:
                length = input_ids.shape[1]
                input_ids = input_ids[:, :kept]
                if attention_mask is None:
                    attention_mask = self._multiplicity_bias(kept, length, input_ids.device)
                else:
                    attention_mask = attention_mask[:, :kept]

        outputs = self.roberta(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            output_attentions=want_attentions,
            output_hidden_states=want_hidden or config.has_pre_transformation,
            return_dict=True,
        )
        last = outputs.last_hidden_state
        conditioning = self.project(outputs.hidden_states[-2] if config.has_pre_transformation else last)
        hidden = tuple(_repeat_last_row(h, length) for h in outputs.hidden_states) if want_hidden else None
        conditioning_states = hidden[:-1] if hidden is not None and config.has_pre_transformation else hidden
        pooled = None if self.pre_LN is None else self.pooled(last[:, 0])
        result = TransformationModelOutput(
            projection_state=_repeat_last_row(conditioning, length),
            last_hidden_state=_repeat_last_row(last, length),
            pooler_output=pooled,
            hidden_states=hidden,
            attentions=outputs.attentions if want_attentions else None,
            conditioning_states=conditioning_states,
        )
        return_dict = config.return_dict if return_dict is None else return_dict
        return result if return_dict else result.to_tuple()

    def project(self, hidden_state: Tensor) -> Tensor:
        """Turns a hidden state into conditioning: float (..., hidden_size) to (..., project_dim)."""
        if self.transformation_pre is not None and self.pre_LN is not None:
            return self.transformation_pre(self.pre_LN(hidden_state))
        return self.transformation(hidden_state)

    def pooled(self, last_hidden_state: Tensor) -> Tensor:
        """Turns XLM-RoBERTa's states into the CLIP head's input: float (..., hidden_size) to (..., project_dim).

        Raises:
            ValueError: the checkpoint has no `pre_LN`.
        """
        if self.pre_LN is None:
            raise ValueError("this text encoder has no pre_LN, which its AltCLIP brings along")
        return self.transformation(self.pre_LN(last_hidden_state))

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """Resizes the word embeddings, as transformers' models do. Textual inversion calls this.

        Word embeddings that were left in their file are read into memory, in the file's dtype.
        """
        embeddings = self.roberta.get_input_embeddings()
        if not isinstance(embeddings, OffloadedEmbedding):
            return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        if new_num_tokens is not None and new_num_tokens != embeddings.num_embeddings:
            embeddings.resize(new_num_tokens)
            self.config.vocab_size = new_num_tokens
        return embeddings

    @property
    def text_model(self) -> ConditioningEnd:
        """For the `clip_skip` of diffusers' pipelines, which projects another layer with `final_layer_norm`."""
        return ConditioningEnd(self.project, self.roberta.encoder, self.roberta.embeddings)

    @property
    def most_tokens(self) -> int:
        """The most tokens that a text can have, including special ones."""
        # Position ids start after the padding id, so the table has fewer usable positions than rows.
        return self.config.max_position_embeddings - (self.config.pad_token_id or 0) - 1

    def _check_length(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> None:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        most = self.most_tokens
        if given.shape[1] > most:
            raise ValueError(f"{given.shape[1]} tokens, but this encoder has positions for {most}: truncate the prompt")

    def _columns_to_keep(self, input_ids: Tensor, attention_mask: Tensor | None) -> int | None:
        """How many columns to compute, or None if this batch must run as it is padded."""
        config = self.config
        if self.training and (config.hidden_dropout_prob or config.attention_probs_dropout_prob):
            return None  # with dropout, padding rows differ
        if attention_mask is not None and attention_mask.dim() != 2:
            return None
        if attention_mask is None and config._attn_implementation not in ("sdpa", "eager"):
            return None  # the bias for repeated padding needs an additive mask
        if torch.compiler.is_compiling():
            return None  # the length depends on the data
        is_token = input_ids != config.pad_token_id
        kept = int(is_token.sum(1).max()) + 1
        if kept >= input_ids.shape[1]:
            return None
        on_the_right = not bool((is_token[:, 1:] & ~is_token[:, :-1]).any())
        as_masked = attention_mask is None or torch.equal(attention_mask.bool(), is_token)
        return kept if on_the_right and as_masked else None

    def _multiplicity_bias(self, kept: int, length: int, device: torch.device) -> Tensor:
        """The bias on attention logits that makes the last column count as often as in the padded batch."""
        bias = torch.zeros(1, 1, 1, kept, dtype=self.dtype, device=device)
        bias[..., -1] = math.log(length - kept + 1)
        return bias

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        # m2 and m9 were published with and without pre_LN, and their configs do not say which.
        if not self.config.has_pre_transformation and "pre_LN.weight" in loading_info.missing_keys:
            loading_info.missing_keys -= {"pre_LN.weight", "pre_LN.bias"}
            self.pre_LN = None
            self.config.has_pre_LN = False
        super()._adjust_missing_and_unexpected_keys(loading_info)


def _repeat_last_row(states: Tensor, length: int | None) -> Tensor:
    if length is None:
        return states
    padding = states[:, -1:].expand(-1, length - states.shape[1], -1)
    return torch.cat([states, padding], dim=1)


# Published folders name this class by the package it had in diffusers, and diffusers writes what `__module__`
# says: the module that re-exports it there.
RobertaSeriesModelWithTransformation.__module__ = "altdiffusion_clip.pipelines.alt_diffusion.modeling_roberta_series"
