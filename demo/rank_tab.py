"""The page's second part: many pictures against one or several prompts."""

import html
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.guard import guarded
from altdiffusion_clip.demo.labels import Labels
from altdiffusion_clip.demo.limits import Limits, RateLimit
from altdiffusion_clip.demo.studio import Comparison, Studio, compare
from altdiffusion_clip.demo.texts import say
from altdiffusion_clip.errors import UserError


class RankTab:
    """Components and calls of the part.

    Args:
        studio: whose scorer ranks.
        limits: of a call.
        rate: of a visitor.
        labels: remembers what changes with the language.
        language: the page's choice of it.
    """

    def __init__(self, studio: Studio, limits: Limits, rate: RateLimit, labels: Labels, language: gr.Radio) -> None:
        self._studio, self._limits, self._rate = studio, limits, rate
        with gr.Row():
            with gr.Column(scale=2):
                uploads = labels.label(
                    gr.File(file_count="multiple", file_types=["image"], elem_id="uploads"), "uploads"
                )
                prompts = labels.label(gr.Textbox("", lines=3, elem_id="prompts"), "prompts")
                start = labels.label(gr.Button(variant="primary", elem_id="rank"), "rank_start", "value")
            with gr.Column(scale=3):
                status = gr.Markdown(elem_id="rank-status")
                labels.label(gr.Markdown(), "ranking", "value")
                table = gr.HTML(elem_id="ranking")
                file = labels.label(gr.File(interactive=False, elem_id="csv"), "csv")
        start.click(
            self.rank,
            [uploads, prompts, language],
            [status, table, file],
            api_name="rank",
            concurrency_limit=1,
            concurrency_id="model",
        )

    def rank(
        self, uploads: list[str] | None, prompts: str, language: str, request: gr.Request
    ) -> tuple[str, str, str | None]:
        """Cosines of every picture with every prompt, best of the first prompt first."""
        with guarded(self._rate, request, language):
            limits = self._limits
            wanted = [limits.prompt(line) for line in (prompts or "").splitlines() if line.strip()]
            if not wanted:
                raise UserError("empty_prompt")
            if not uploads:
                raise UserError("no_uploads")
            if len(uploads) > limits.uploads or len(wanted) > limits.prompts:
                raise UserError("too_many")
            assert self._studio.scorer is not None
            paths, refused = [], []
            for upload in uploads:
                try:
                    limits.picture(upload)
                    paths.append(Path(upload))
                except UserError as error:
                    refused.append(f"{Path(upload).name}: {say(str(error), language)}")
            found = compare(self._studio.scorer, wanted, paths)
            names = "; ".join([*refused, *found.broken])
            broken = say("left_out", language, names=html.escape(names)) if names else ""
            status = say("ranked", language, count=len(found.names), broken=broken)
            if not found.names:
                return status, "", None
            path = Path(tempfile.mkdtemp(prefix="altdiffusion-demo-")) / "ranking.csv"
            path.write_text(found.as_csv(), encoding="utf-8-sig")
            return status, as_html(found), str(path)


def as_html(found: Comparison) -> str:
    """A table whose cells are the darker the better, within each column."""
    head = "".join(f'<th scope="col" dir="auto">{html.escape(prompt)}</th>' for prompt in found.prompts)
    low, high = found.cosines.min(0), found.cosines.max(0)
    rows = []
    for name, cosines in zip(found.names, found.cosines, strict=True):
        cells: list[Any] = []
        for value, least, most in zip(cosines, low, high, strict=True):
            share = (value - least) / (most - least) if most > least else 1.0
            cells.append(f'<td style="background: rgb(22 120 180 / {0.08 + 0.6 * share:.2f})">{value:.3f}</td>')
        rows.append(f'<tr><th scope="row" dir="auto">{html.escape(name)}</th>{"".join(cells)}</tr>')
    body = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="table"><table>{body}</table></div>'
