"""The demo's texts in English and Chinese, in the usual terms of image generators."""

import html
import re

from altdiffusion_clip.errors import UserError

LANGUAGES = {"en": "English", "zh": "中文"}

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Draw and rank in your own language", "用你的语言画图、排序"),
    "intro": (
        "Write a prompt in any language of the model. The pictures are sorted by how well they match it.",
        "提示词可以用模型支持的任何语言。生成的图片按与提示词的匹配程度排序。",
    ),
    "model": ("Model", "模型"),
    "card": ("model card", "模型说明"),
    "licence": ("Licence", "许可证"),
    "licence_unknown": ("not stated by the model", "模型未注明"),
    "language": ("Language", "界面语言"),
    "about": ("About the model and the scores", "关于模型和分数"),
    "about_text": (
        "**Cosine** says how well a picture matches a prompt: from -1 to 1, higher is better. Compare it only between "
        "pictures of one prompt, since each language has its own range.",
        "**余弦相似度**表示图片与提示词的匹配程度，范围 -1 到 1，越高越好。不同语言的分数范围不同，"
        "请只在同一提示词的图片之间比较。",
    ),
    "things": (
        "**What this model draws**: {things}. Anything else comes out wrong.",
        "**本模型会画的东西**：{things}。其他内容画不出来。",
    ),
    # Tabs.
    "draw": ("Draw", "文生图"),
    "change": ("Edit", "图生图"),
    "rank": ("Rank", "图片排序"),
    "compare": ("Compare languages", "多语言对比"),
    # The model's licence.
    "terms": ("The model's licence", "模型许可证"),
    "terms_text": (
        "**{name}** ([its text]({url})) goes with this model to everybody who uses it. In short: you may use and share "
        "what you draw, also for money, and you answer for it. You must not use the model to break the law; to harm or "
        "exploit minors; to spread false information meant to harm; to give away personal data that can harm somebody; "
        "to defame or harass; to decide automatically over people's rights; to discriminate, or exploit people's "
        "weaknesses; to give medical advice; or to help the courts, police or migration offices judge people. The "
        "licence's own words count, not this summary.",
        "本模型适用 **{name}** 许可证（[全文]({url})），使用者均须遵守。简言之："
        "你可以使用和分享所绘图片，包括商业用途，并自行承担责任。"
        "不得将模型用于：违法活动；伤害或剥削未成年人；散布意图伤害他人的虚假信息；泄露可能伤害他人的个人信息；诽谤或骚扰；"
        "自动裁定他人权利；歧视或利用他人弱点；提供医疗建议；协助司法、执法或移民部门评判他人。一切以许可证原文为准，而非本摘要。",
    ),
    "accept": ("I have read the licence and accept it", "我已阅读并接受该许可证"),
    "accept_first": (
        "Read and accept the model's licence first (above; for programs: accepted=True).",
        "请先阅读并接受模型许可证（见上方；程序调用请设 accepted=True）。",
    ),
    # Drawing.
    "prompt": ("Prompt", "提示词"),
    "prompt_hint": (
        "What to draw, or pasted settings. (word:1.3) gives a word more weight. Ctrl+Enter draws.",
        "想画什么？也可粘贴参数。(词语:1.3) 可加强某个词。按 Ctrl+Enter 生成。",
    ),
    "negative": ("Negative prompt", "反向提示词"),
    "negative_hint": ("What to keep out", "不想出现的内容"),
    "count": ("Pictures", "生成数量"),
    "keep": ("Keep best", "保留数量"),
    "steps": ("Steps", "采样步数"),
    "guidance": ("Guidance (CFG)", "提示词引导系数（CFG）"),
    "seed": ("Seed (-1: random)", "随机种子（-1 为随机）"),
    "dice": ("🎲 Random seed", "🎲 随机种子"),
    "scheduler": ("Sampler", "采样器"),
    "width": ("Width (pixels)", "宽度（像素）"),
    "height": ("Height (pixels)", "高度（像素）"),
    "settings": ("Settings", "参数"),
    "start": ("Draw", "生成"),
    "stop": ("Stop", "停止"),
    "again": ("Same again", "再来一次（同种子）"),
    "vary": ("New variations", "换一批"),
    "to_change": ("Edit", "修改这张图"),
    "copy": ("Copy settings", "复制参数"),
    "copied": ("Settings copied.", "参数已复制。"),
    "pictures": ("Pictures, best first", "图片（按匹配程度排序）"),
    "preview": ("In progress", "正在生成"),
    "download": ("Download all, with settings", "全部下载（含参数）"),
    "restore": (
        "Load settings from a picture or .txt (or drop it anywhere)",
        "从图片或 .txt 读取参数（也可拖放到页面任意处）",
    ),
    "examples": ("Examples", "示例"),
    "history": ("History (kept in this browser)", "历史记录（只保存在本浏览器）"),
    "waiting": ("Waiting …", "排队中……"),
    "drawing": ("Picture {number} of {count}, step {step} of {steps}", "第 {number}/{count} 张，第 {step}/{steps} 步"),
    "drawn": (
        "{count} drawn in {seconds:.1f} s, {kept} kept.",
        "已生成 {count} 张，用时 {seconds:.1f} 秒，保留 {kept} 张。",
    ),
    "not_known": (
        "This model does not know what the prompt names, so the picture shows something else. What it draws is listed "
        "below, in “About the model”.",
        "本模型不认识提示词中的内容，画出来的会是别的东西。它会画什么，见下方“关于模型和分数”。",
    ),
    "partly_known": ("This model knows {known}, but not {words}.", "本模型认识 {known}，但不认识 {words}。"),
    "seed_of": ("seed {seed}", "种子 {seed}"),
    "long_score": (
        "The prompt is long: the scores are for its first 77 tokens, the pictures for all of it.",
        "提示词较长：分数只依据前 77 个词元，图片依据全部内容。",
    ),
    # Editing.
    "change_picture": ("Picture", "原图"),
    "change_help": (
        "Paint over what should be drawn again. Without paint, the whole picture changes. At strength 1, nothing of "
        "the original remains.",
        "涂抹要重画的部分；不涂抹则整张图片都会改变。重绘幅度为 1 时不保留原图内容。",
    ),
    "change_prompt": ("Prompt", "提示词"),
    "change_start": ("Edit", "生成"),
    "strength": ("Strength", "重绘幅度"),
    # Ranking.
    "uploads": ("Pictures to rank", "要排序的图片"),
    "prompts": ("Prompts, one per line, in any language", "提示词（每行一条，语言不限）"),
    "rank_start": ("Rank", "开始排序"),
    "ranking": (
        "Scores of pictures (rows) and prompts (columns). ★ marks the best picture for each prompt.",
        "图片（行）与提示词（列）的分数，★ 为每条提示词的最佳图片。",
    ),
    "best": ("best", "最佳"),
    "csv": ("Download as a table (CSV)", "下载表格（CSV）"),
    "ranked": ("{count} ranked.", "已排序 {count} 张。"),
    "left_out": ("Left out: {names}", "未能读取：{names}"),
    # Comparing.
    "thing": ("Thing", "物体"),
    "colour": ("Background", "背景"),
    "compare_start": ("Draw in all languages", "用各种语言生成"),
    "same_noise": ("The same idea and seed in each language", "同一内容、同一种子、不同语言"),
    # Errors.
    "empty_prompt": ("The prompt is empty. Say what to draw.", "提示词为空，请先输入。"),
    "long_prompt": ("The prompt is too long: at most {most} characters.", "提示词过长：最多 {most} 个字符。"),
    "many_tokens": (
        "The prompt has {tokens} tokens, and {most} can be read. Shorten it. This would be cut: “{cut}”",
        "提示词有 {tokens} 个词元，最多可读 {most} 个，请缩短。超出的部分：“{cut}”",
    ),
    "large_upload": ("The picture is too large.", "图片过大。"),
    "no_picture": ("The file is not a picture.", "这个文件不是图片。"),
    "no_picture_given": ("Add a picture to edit first.", "请先放入要修改的图片。"),
    "no_settings": ("There are no settings in it.", "其中没有生成参数。"),
    "no_uploads": ("Add pictures to rank first.", "请先放入要排序的图片。"),
    "bad_size": ("{field} must be a multiple of {multiple}.", "{field}须为 {multiple} 的倍数。"),
    "too_weak": (
        "Strength is too low for any step. Raise the strength or the number of steps.",
        "重绘幅度过低，请提高重绘幅度或采样步数。",
    ),
    "beyond": ("{field} must be between {least} and {most}.", "{field}须在 {least} 到 {most} 之间。"),
    "no_number": ("{field} must be a number.", "{field}须为数字。"),
    "failed": ("Something went wrong on the server. Please try again.", "服务器出错了，请重试。"),
    "too_often": ("Too many requests. Try again in a minute.", "请求过于频繁，请一分钟后再试。"),
    "large_request": ("The request is too large.", "请求过大。"),
    "no_addresses": ("Upload the file. Addresses are not fetched.", "请上传文件；不会下载网址。"),
    "closing": ("The server is stopping. Try again later.", "服务器正在关闭，请稍后再试。"),
    "broken_number": (
        "The picture with seed {seed} failed: the model gave invalid numbers.",
        "种子为 {seed} 的图片生成失败：模型输出了无效数值。",
    ),
    "held_back": (
        "The safety checker withheld the picture with seed {seed}.",
        "种子为 {seed} 的图片被安全检查器拦下。",
    ),
}
"""English and Chinese by key."""


class Refusal(UserError):
    """A rejected call, explained in the visitor's language.

    Args:
        key: of the text.
        **values: for the text; `field` is itself the key of a text.

    Example:
        >>> Refusal("beyond", field="count", least=1, most=16).said("zh")
        '生成数量须在 1 到 16 之间。'
    """

    def __init__(self, key: str, **values: object) -> None:
        self.key, self.values = key, values
        super().__init__(self.said("en"))

    def said(self, language: str) -> str:
        """The explanation in a language of the interface."""
        values = dict(self.values)
        if "field" in values:  # only the name, without the rest of the label
            values["field"] = re.split(r" ?[(（]", say(str(values["field"]), language))[0]
        return say(self.key, language, **values)


def say(key: str, language: str, **values: object) -> str:
    """A text in a language of the interface; English if the language is unknown.

    Example:
        >>> say("ranked", "zh", count=4)
        '已排序 4 张。'
    """
    english, chinese = TEXTS[key]
    return (chinese if language == "zh" else english).format(**values)


def announced(*lines: str) -> str:
    """Lines as HTML that screen readers announce.

    Example:
        >>> announced("1 < 2")
        '<div role="status" aria-live="polite">1 &lt; 2</div>'
    """
    return f'<div role="status" aria-live="polite">{"<br>".join(map(html.escape, lines))}</div>'


def both(key: str) -> str:
    """A text in all languages of the interface, for when the visitor's is unknown.

    Example:
        >>> both("no_picture")
        'The file is not a picture. 这个文件不是图片。'
    """
    return " ".join(TEXTS[key])
