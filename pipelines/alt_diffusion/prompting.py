"""Weighted and long prompts for every AltDiffusion pipeline."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
from torch import Tensor

from altdiffusion_clip.pipelines.alt_diffusion.prompt_cache import PROMPTS, PromptCache
from altdiffusion_clip.prompts.syntax import warn_of_syntax
from altdiffusion_clip.prompts.weights import parse_weights
from altdiffusion_clip.prompts.windows import WINDOW, Windows, split_into_windows

EMPHASES = ("word", "vectors")
_LEAST_WINDOW = 3
"""The fewest tokens of a window with a word: the two special ones and one more."""


class AltDiffusionPromptMixin(StableDiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`encode_prompt` with weights and long prompts. It must come before the diffusers class.

    Weights are written as in the AUTOMATIC1111 WebUI (see `altdiffusion_clip.prompts.weights`). A weight scales the
    effect of a word: the difference between the prompt's conditioning and that of the same prompt with padding instead
    of the word. Each of XLM-R's vectors depends on the whole prompt, so this finds the word's part in all of them. The
    WebUIs' method, which scales the vectors at the word's position, is also available: see `set_emphasis`.
    """

    _emphasis = "word"
    _prompt_windows = 1
    _prompts_kept: PromptCache | None = None

    def set_prompt_cache(self, most: int = PROMPTS) -> None:
        """Sets how many encoded prompts to keep, and clears the cache. 0 keeps none.

        Args:
            most: prompts.

        Raises:
            ValueError: it is less than zero.
        """
        self._prompts_kept = PromptCache(most)

    def set_emphasis(self, how: str = "word") -> None:
        """Chooses what weights scale.

        Args:
            how: "word", the effect of the word on the whole conditioning; or "vectors", the vectors at the word's
                position, after which the mean of all is restored, as in the AUTOMATIC1111 WebUI.
                `benchmarks/emphasis.py` measures both.

        Raises:
            ValueError: it is neither of these.
        """
        if how not in EMPHASES:
            raise ValueError(f"no emphasis {how!r}; choose one of {', '.join(EMPHASES)}")
        self._emphasis = how

    def enable_long_prompts(self, windows: int = 4) -> None:
        """Encodes prompts of more than 77 tokens in several windows, which are concatenated for the UNet.

        Without it, the rest of a long prompt is cut with a warning, as in published AltDiffusions.

        Args:
            windows: how many at most.

        Raises:
            ValueError: it is less than one.
        """
        if windows < 1:
            raise ValueError(f"{windows} windows: give 1 or more")
        self._prompt_windows = windows

    def disable_long_prompts(self) -> None:
        """Cuts prompts after one window of 77 tokens."""
        self._prompt_windows = 1

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: torch.device | str,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Encodes prompts, like `StableDiffusionPipeline.encode_prompt`.

        Returns:
            The conditioning of the prompts and of the negative prompts, each float (prompts · num_images_per_prompt,
            77 · windows, project_dim).

        Raises:
            TypeError: only one of prompt and negative prompt is a list.
            ValueError: the numbers of negative prompts and prompts differ.
        """
        prompts = _as_list(prompt)
        window = WINDOW
        wants_negative = (
            do_classifier_free_guidance and negative_prompt_embeds is None and self.text_encoder is not None
        )
        count = len(prompts) if prompt_embeds is None else prompt_embeds.shape[0]
        negatives = _negatives(prompt, negative_prompt, count) if wants_negative else []
        given = prompt_embeds if prompt_embeds is not None else negative_prompt_embeds
        if prompt_embeds is not None:
            prompts = []
        if given is not None and given.shape[1] % WINDOW:
            window = given.shape[1]  # of any length, as in diffusers
            if negatives and window < _LEAST_WINDOW:
                raise ValueError(f"no negative prompt has {window} tokens; give negative_prompt_embeds too")
        least = 1 if given is None else max(1, given.shape[1] // window)
        windows = [self._windows(text, window) for text in [*prompts, *negatives]]
        length = max([least, *(len(w.input_ids) for w in windows)])
        with self._lora_scaled(lora_scale):
            if prompts:
                prompt_embeds = self._conditioning(windows[: len(prompts)], length, device, clip_skip)
            if negatives:  # never with clip_skip, as in diffusers
                negative_prompt_embeds = self._conditioning(windows[len(prompts) :], length, device, None)
        prompt_embeds, negative_prompt_embeds = super().encode_prompt(
            prompt,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            lora_scale=lora_scale,
            clip_skip=clip_skip,
        )
        return prompt_embeds, negative_prompt_embeds  # diffusers' tests look for these names in the source

    def _windows(self, prompt: str, window: int = WINDOW) -> Windows:
        warn_of_syntax(prompt)
        prompt = self.maybe_convert_prompt(prompt, self.tokenizer)  # multi-vector tokens of textual inversion
        if window == WINDOW:
            window, most = min(self.tokenizer.model_max_length, WINDOW), self._prompt_windows
        else:
            most = 1
        return split_into_windows(self.tokenizer, parse_weights(prompt), most, window)

    def _conditioning(
        self, prompts: list[Windows], length: int, device: torch.device | str, clip_skip: int | None
    ) -> Tensor:
        """Encodes prompts or takes them from the cache: float (prompts, length · window, project_dim).

        Prompts and negative prompts are encoded in separate batches. Otherwise a picture's last bits would depend on
        whether the negative prompt was cached.
        """
        if self._prompts_kept is None:
            self._prompts_kept = PromptCache()
        kind = torch.device(device).type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        masked = self.text_encoder.config.use_attention_mask
        how = (length, str(device), clip_skip, masked, autocast, self._emphasis)
        keys: list[Hashable] = [(*windows.key(), *how) for windows in prompts]
        known = self._prompts_kept.get(self.text_encoder, keys)
        missing = {key: windows for key, windows in zip(keys, prompts, strict=True) if key not in known}
        if missing:
            encoded = self._encoded(list(missing.values()), length, device, clip_skip)
            new = dict(zip(missing, encoded, strict=True))
            self._prompts_kept.keep(self.text_encoder, new)
            known |= new
        return torch.stack([known[key] for key in keys])

    def _encoded(
        self, prompts: list[Windows], length: int, device: torch.device | str, clip_skip: int | None
    ) -> list[Tensor]:
        """Encodes prompts in one batch, float (length · window, project_dim) each."""
        pad = self.tokenizer.pad_token_id
        rows: list[Tensor] = []
        scales: list[Tensor] = []  # per window
        plan: list[list[tuple[float, int]]] = []  # per window, its row, and its row without a word
        empty = split_into_windows(self.tokenizer, parse_weights("")).input_ids[0]
        for windows in prompts:
            for ids, weights in zip(windows.input_ids, windows.weights, strict=True):
                plan.append([(1.0, len(rows))])
                rows.append(ids)
                scales.append(weights)
                for weight in sorted(set(weights.tolist()) - {1.0}) if self._emphasis == "word" else ():
                    plan[-1].append((weight, len(rows)))
                    rows.append(torch.where(weights == weight, pad, ids))
            for _ in range(length - len(windows.input_ids)):
                plan.append([(1.0, len(rows))])
                rows.append(empty[: windows.input_ids.shape[1]])
                scales.append(torch.ones(windows.input_ids.shape[1]))
        encoded = self._encode(torch.stack(rows).to(device), clip_skip)
        conditionings = []
        for ((_, whole), *without), scale in zip(plan, scales, strict=True):
            conditioning = encoded[whole]
            if self._emphasis == "vectors" and (scale != 1).any():
                scaled = conditioning * scale[:, None].to(conditioning)
                conditioning = scaled * (conditioning.float().mean() / scaled.float().mean()).to(conditioning)
            for weight, row in without:
                conditioning = conditioning + (weight - 1) * (encoded[whole] - encoded[row])
            conditionings.append(conditioning)
        return list(torch.stack(conditionings).unflatten(0, (len(prompts), length)).flatten(1, 2))

    def _encode(self, input_ids: Tensor, clip_skip: int | None) -> Tensor:
        encoder: Any = self.text_encoder
        mask = (input_ids != self.tokenizer.pad_token_id).long() if encoder.config.use_attention_mask else None
        if clip_skip is None:
            return encoder(input_ids, attention_mask=mask)[0]
        states = encoder(input_ids, attention_mask=mask, output_hidden_states=True)[-1]
        return encoder.text_model.final_layer_norm(states[-(clip_skip + 1)])

    @contextmanager
    def _lora_scaled(self, scale: float | None) -> Iterator[None]:
        if scale is None or not USE_PEFT_BACKEND:
            yield
            return
        scale_lora_layers(self.text_encoder, scale)
        try:
            yield
        finally:
            unscale_lora_layers(self.text_encoder, scale)


def _as_list(prompt: str | list[str] | None) -> list[str]:
    if prompt is None:
        return []
    return [prompt] if isinstance(prompt, str) else list(prompt)


def _negatives(prompt: str | list[str] | None, negative: str | list[str] | None, count: int) -> list[str]:
    """The negative prompts, one per prompt, with diffusers' own errors."""
    if negative is None:
        return [""] * count
    if prompt is not None and type(prompt) is not type(negative):
        raise TypeError(
            f"`negative_prompt` should be the same type to `prompt`, but got {type(negative)} != {type(prompt)}."
        )
    negatives = _as_list(negative)
    if len(negatives) != count:
        raise ValueError(
            f"`negative_prompt`: {negative} has batch size {len(negatives)}, but `prompt`: {prompt} has batch size "
            f"{count}. Please make sure that passed `negative_prompt` matches the batch size of `prompt`."
        )
    return negatives
