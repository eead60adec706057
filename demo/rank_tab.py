"""The third tab: ranks many pictures by one or several prompts."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, Context
from altdiffusion_clip.demo.ranking import compare
from altdiffusion_clip.demo.texts import Refusal, announced, say
from altdiffusion_clip.demo.uploads import quiet
from altdiffusion_clip.judges.encoding import Bench


class RankTab:
    """Components and calls of the tab.

    Args:
        context: of the page.
        bench: of the judges.
    """

    def __init__(self, context: Context, bench: Bench) -> None:
        self._context, self._bench = context, bench
        labels = context.labels
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                uploads = labels.label(
                    quiet(gr.File(file_count="multiple", file_types=["image"], elem_id="uploads")), "uploads"
                )
                prompts = labels.label(gr.Textbox("", lines=3, elem_id="prompts"), "prompts")
                start = labels.label(gr.Button(variant="primary", elem_id="rank"), "rank_start", "value")
            with gr.Column(scale=3, min_width=300):
                status = gr.HTML(elem_id="rank-status", elem_classes="status")
                labels.label(gr.Markdown(), "ranking", "value")
                table = gr.HTML(elem_id="ranking")
                file = labels.label(gr.File(interactive=False, visible=False, elem_id="csv"), "csv")
        start.click(
            self.rank,
            [uploads, prompts, context.language],
            [status, table, file],
            api_name="rank",
            concurrency_limit=1,
            concurrency_id="model",
            show_progress="minimal",
            show_progress_on=[status],
        ).then(lambda path: gr.update(visible=path is not None), file, file, **BESIDE_THE_QUEUE)

    def rank(self, uploads: list[str] | None, prompts: str, language: str) -> Iterator[tuple[str, str, str | None]]:
        """Scores every picture with every prompt, the best for the first prompt first."""
        context = self._context
        with context.guard.call("rank", language):
            limits = context.limits
            wanted = [limits.prompt(line) for line in (prompts or "").splitlines() if line.strip()]
            if not wanted:
                raise Refusal("empty_prompt")
            if not uploads:
                raise Refusal("no_uploads")
            limits.within(uploads=(len(uploads), 1, limits.uploads), prompts=(len(wanted), 1, limits.prompts))
            paths, refused = [], []
            for upload in uploads:
                try:
                    limits.picture(upload)
                    paths.append(Path(upload))
                except Refusal as error:
                    refused.append(f"{Path(upload).name}: {error.said(language)}")
            found = compare(self._bench, wanted, paths)
            names = "; ".join([*refused, *found.broken])
            said = [say("ranked", language, count=len(found.names))]
            if names:
                said.append(say("left_out", language, names=names))
            status = announced(" ".join(said))
            if not found.names:
                yield status, "", None
                return
            with tempfile.TemporaryDirectory(prefix="altdiffusion-demo-") as folder:  # Gradio copies what it shows
                path = Path(folder) / "ranking.csv"
                path.write_text(found.as_csv(), encoding="utf-8-sig")
                yield status, found.as_html(language), str(path)
