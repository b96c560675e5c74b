"""The model of I-FAS as a transformers model: vision tower, globally aware connector, causal language model.

Importing this module registers it with AutoConfig and AutoModel; no remote code is involved. Tensor names end in their
shape: B samples, U views of each, T positions of text and image tokens, C channels, H x W pixels, N answer tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ifas.model import connector as connectors
from ifas.model.connector import Connector
from ifas.model.loss import PROMPT, LossSums, answer_nll, part_sums
from ifas.model.towers import new_tower


class IfasConfig(PreTrainedConfig):
    """Shape of an `IfasModel`.

    Attributes:
        vision_kind: key of `towers.TOWERS`.
        vision: fields of the tower, `image_size` in pixels included.
        views: number of views of an image that the tower sees.
        connector: kind, queries, layers, heads, width, mlp_ratio, dropout.
        text_config: config of the language model, or its dict.
        image_token_id: placeholder of an image token in `input_ids`. It is never embedded, so it may lie outside of
            the language model's vocabulary.
    """

    model_type = "ifas"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012 - a transformers class attribute

    vision_kind: str = "clip"
    vision: dict[str, Any] | None = None
    views: int = 1
    connector: dict[str, Any] | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    image_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        super().__post_init__(**kwargs)


class IfasModel(PreTrainedModel):
    """Image and question in, answer tokens out; see `IfasConfig` for its shape and `processor` for its inputs."""

    config_class = IfasConfig
    base_model_prefix = "ifas"
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: IfasConfig) -> None:
        super().__init__(config)
        self.vision = new_tower(config.vision_kind, config.vision or {})
        self.language = AutoModelForCausalLM.from_config(config.text_config)
        self.connector = new_connector(config, self.vision)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """The connector initialises itself; the other parts are transformers models, or come with weights."""
        if isinstance(module, Connector):
            module.reset()

    def train(self, mode: bool = True) -> IfasModel:
        """A frozen tower stays in eval mode."""
        super().train(mode)
        if not any(p.requires_grad for p in self.vision.parameters()):
            self.vision.eval()
        return self

    def see(self, pixel_values_BUCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """X_V (B, U * N, D), the patches of all views, and G_V: U * L tensors (B, D_l), view by view."""
        frozen = not any(p.requires_grad for p in self.vision.parameters())
        samples, views = pixel_values_BUCHW.shape[:2]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            patches, levels = self.vision(pixel_values_BUCHW.flatten(0, 1))
        dtype = self.connector.project.weight.dtype
        levels = [level.to(dtype).unflatten(0, (samples, views)) for level in levels]
        patches_BND = patches.to(dtype).unflatten(0, (samples, views)).flatten(1, 2)
        return patches_BND, [level_BUD[:, view] for view in range(views) for level_BUD in levels]

    def features(self, pixel_values_BUCHW: Tensor) -> Tensor:
        """What `see` gives, as one row (B, F) per sample: G_V, then X_V."""
        patches_BND, levels = self.see(pixel_values_BUCHW)
        return torch.cat([*levels, patches_BND.flatten(1)], dim=1)

    def seen(self, features_BF: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What `see` gave, from `features`."""
        widths = self.vision.level_widths * self.config.views
        *levels, patches_BM = torch.split(features_BF, [*widths, features_BF.shape[1] - sum(widths)], dim=1)
        return patches_BM.reshape(len(patches_BM), -1, self.vision.patch_width), levels

    def embed(self, pixel_values_BUCHW: Tensor, input_ids_BT: Tensor) -> Tensor:
        """Embeddings (B, T, width) of the text, image tokens put where `input_ids` hold the placeholder."""
        return self._embed(self.see(pixel_values_BUCHW), input_ids_BT)

    def _embed(self, seen: tuple[Tensor, list[Tensor]], input_ids_BT: Tensor) -> Tensor:
        image_BQW = self.connector(*seen)
        holes_BT = input_ids_BT == self.config.image_token_id
        text_BTW: Tensor = self.language.get_input_embeddings()(input_ids_BT.masked_fill(holes_BT, 0))
        return text_BTW.masked_scatter(holes_BT.unsqueeze(-1), image_BQW.to(text_BTW.dtype))

    def forward(
        self,
        input_ids: Tensor,
        parts: Tensor,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> LossSums:
        """Loss sums of a batch; see `loss`. The language model's head runs on the answer's positions only.

        Sequences are padded on the right. A causal model's answer positions never look at what follows them, so no
        attention mask is needed, and the padding changes nothing.

        Args:
            input_ids: (B, T) prompt and answer, padded on the right with any id.
            parts: (B, T) loss.PROMPT, JUDGMENT or INTERPRETATION of each token; padding is PROMPT.
            pixel_values: uint8 (B, U, 3, H, W).
            features: (B, F), of `features`, in place of `pixel_values`: the tower then does not run.
            weights: (B, T) of each token in the loss of its part; None: all weigh the same.
        """
        if features is None:
            assert pixel_values is not None
            embeds_BTW = self.embed(pixel_values, input_ids)
        else:
            embeds_BTW = self._embed(self.seen(features), input_ids)
        decoder, head = self.language.get_decoder(), self.language.get_output_embeddings()
        hidden_BTW = decoder(inputs_embeds=embeds_BTW, use_cache=False).last_hidden_state
        # The token at a position is predicted one position before.
        answer_BT = parts[:, 1:] != PROMPT
        nll_N = answer_nll(
            hidden_BTW[:, :-1][answer_BT], head.weight, getattr(head, "bias", None), input_ids[:, 1:][answer_BT]
        )
        samples_N = answer_BT.nonzero()[:, 0]
        weights_N = None if weights is None else weights[:, 1:][answer_BT]
        return part_sums(nll_N, parts[:, 1:][answer_BT], samples_N, len(input_ids), weights_N)

    @torch.no_grad()
    def prefill(self, pixel_values: Tensor, input_ids: Tensor, see: int = 0, opening: Any = None) -> tuple[Tensor, Any]:
        """Runs the prompt once.

        Args:
            pixel_values: uint8 (B, U, 3, H, W).
            input_ids: (B, T) prompts of one length, no padding.
            see: images whose views pass the vision tower at once; 0 takes all.
            opening: KV cache of what comes before `input_ids`, B rows; it is used up.

        Returns:
            Last hidden state (B, width) of the last position, which the language model's head turns into the logits of
            the first answer token, and the KV cache to go on from.
        """
        some = see or len(pixel_values)
        pairs = zip(torch.split(pixel_values, some), torch.split(input_ids, some), strict=True)
        embeds_BTW = torch.cat([self.embed(pixels, ids) for pixels, ids in pairs])
        out = self.language.get_decoder()(inputs_embeds=embeds_BTW, past_key_values=opening, use_cache=True)
        return out.last_hidden_state[:, -1], out.past_key_values


def new_connector(config: IfasConfig, vision: Any) -> Connector:
    """The connector between a tower and the language model of `config`, freshly initialised."""
    return connectors.new_connector(
        config.connector or {},
        level_widths=vision.level_widths * config.views,
        patch_width=vision.patch_width,
        out_width=config.text_config.hidden_size,  # type: ignore[union-attr]
    )


AutoConfig.register(IfasConfig.model_type, IfasConfig)
AutoModel.register(IfasConfig, IfasModel)
