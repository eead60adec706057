"""What the demo says, in English and Chinese."""

import html

LANGUAGES = {"en": "English", "zh": "中文"}

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Draw and rank in your own language", "用您的语言作画与排序"),
    "intro": (
        "Prompts may be in any language of the model. Every picture is scored against its prompt: the cosine between "
        "-1 and 1, best first.",
        "提示词可用模型支持的任何语言。每张图片都按与提示词的相似度（余弦值，-1 到 1）排序，最好的在前。",
    ),
    "model": ("Model", "模型"),
    "licence": ("Licence", "许可证"),
    "licence_unknown": ("not stated by the model", "模型未注明"),
    "language": ("Interface", "界面语言"),
    # The parts of the page.
    "draw": ("Draw", "作画"),
    "change": ("Change", "修改"),
    "rank": ("Rank", "排序"),
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
        "您可以使用和分享所绘图片，包括商业用途，并自行承担责任。"
        "不得将模型用于：违法活动；伤害或剥削未成年人；散布意图伤害他人的虚假信息；泄露可能伤害他人的个人信息；诽谤或骚扰；"
        "自动裁定他人权利；歧视或利用他人弱点；提供医疗建议；协助司法、执法或移民部门评判他人。一切以许可证原文为准，而非本摘要。",
    ),
    "accept": ("I have read the licence and accept it", "我已阅读并接受该许可证"),
    "accept_first": (
        "Read and accept the model's licence first (above; for programs: accepted=True).",
        "请先阅读并接受模型许可证（见上方；程序调用请设 accepted=True）。",
    ),
    # Drawing.
    "prompt": ("What to draw", "画什么"),
    "negative": ("What to keep out", "不要什么"),
    "count": ("Pictures", "图片数量"),
    "keep": ("Keep the best", "保留最好的"),
    "steps": ("Steps", "步数"),
    "guidance": ("Guidance", "引导强度"),
    "seed": ("Seed of the first", "首张种子"),
    "scheduler": ("Scheduler", "采样器"),
    "width": ("Width, in pixels", "宽度（像素）"),
    "height": ("Height, in pixels", "高度（像素）"),
    "settings": ("Settings", "设置"),
    "start": ("Draw", "开始作画"),
    "stop": ("Stop", "停止"),
    "again": ("Again, same seed", "再画（同一种子）"),
    "vary": ("Vary, new seeds", "换一组（新种子）"),
    "to_change": ("Change it", "修改此图"),
    "pictures": ("Pictures, best first", "图片（最好的在前）"),
    "preview": ("Being drawn", "正在绘制"),
    "download": ("All of them, with their settings", "全部下载（含设置）"),
    "restore": ("Settings from a picture (or drop it anywhere)", "从图片恢复设置（或拖放到页面任意处）"),
    "examples": ("Examples", "示例"),
    "waiting": ("Waiting for its turn …", "正在排队……"),
    "drawing": ("Picture {number} of {count}, step {step} of {steps}", "第 {number}/{count} 张，第 {step}/{steps} 步"),
    "drawn": ("{count} drawn, {kept} kept.", "已绘制 {count} 张，保留 {kept} 张。"),
    "long_score": (
        "The scores are of the prompt's first 77 tokens; the pictures are of all of it.",
        "得分仅依据提示词的前 77 个词元；图片依据全部内容。",
    ),
    # Changing.
    "change_picture": ("The picture", "原图"),
    "change_help": (
        "Paint over what is to be drawn anew; without paint the whole picture is changed. "
        "A strength of 1 keeps nothing of what was there.",
        "涂抹需要重画的部分；不涂抹则修改整张图片。强度为 1 时完全重画。",
    ),
    "change_prompt": ("What it is to show", "改成什么"),
    "change_start": ("Change", "开始修改"),
    "strength": ("Strength", "强度"),
    # Ranking.
    "uploads": ("Pictures to rank", "待排序的图片"),
    "prompts": ("Prompts, one a line, in any languages", "提示词（每行一个，语言不限）"),
    "rank_start": ("Rank", "排序"),
    "ranking": ("Cosines of pictures (rows) and prompts (columns)", "图片（行）与提示词（列）的余弦值"),
    "csv": ("As a table (CSV)", "下载表格 (CSV)"),
    "ranked": ("{count} ranked.", "已排序 {count} 张。"),
    "left_out": ("Left out: {names}", "未能读取：{names}"),
    # Comparing.
    "thing": ("A thing", "物体"),
    "colour": ("Background", "背景"),
    "compare_start": ("Draw in all languages", "用各种语言作画"),
    "same_noise": ("One idea, one seed, each language by itself", "同一想法、同一种子、各种语言"),
    # What goes wrong.
    "empty_prompt": ("Say what to draw.", "请先输入提示词。"),
    "long_prompt": ("This prompt is too long: 2,000 characters at most.", "提示词过长：最多 2,000 个字符。"),
    "many_tokens": ("This prompt is too long for the model; shorten it.", "提示词超出模型上限，请缩短。"),
    "large_upload": ("This picture is too large.", "图片过大。"),
    "no_picture": ("This is no picture.", "这不是图片。"),
    "no_picture_given": ("Give a picture to change.", "请先放入要修改的图片。"),
    "no_settings": ("This picture holds no settings of this page.", "这张图片不含本页的设置。"),
    "no_uploads": ("Give pictures to rank.", "请先放入图片。"),
    "bad_size": ("This model draws no such width or height.", "该模型不支持此宽度或高度。"),
    "too_weak": (
        "So weak a change leaves no step to draw; give more strength or steps.",
        "强度过低，请提高强度或步数。",
    ),
    "too_many": ("A number is beyond its limit.", "数值超出范围。"),
    "too_often": ("Too many calls; try again in a minute.", "请求过于频繁，请一分钟后再试。"),
    "large_request": ("This request is too large.", "请求过大。"),
    "no_addresses": ("Upload the file; addresses are not fetched.", "请上传文件；不会下载网址。"),
    "closing": ("The server is being stopped; try again later.", "服务器正在关闭，请稍后再试。"),
    "broken_number": (
        "The picture of seed {seed} came out as not a number.",
        "种子 {seed} 的图片未能成功生成。",
    ),
    "held_back": (
        "The picture of seed {seed} was held back by the safety checker.",
        "种子 {seed} 的图片被安全检查器拦下。",
    ),
}
"""Of each key: English, Chinese."""


def say(key: str, language: str, **values: object) -> str:
    """A text in a language of the interface; English where the language is not known.

    Example:
        >>> say("drawn", "zh", count=4, kept=2)
        '已绘制 4 张，保留 2 张。'
    """
    english, chinese = TEXTS[key]
    return (chinese if language == "zh" else english).format(**values)


def announced(*lines: str) -> str:
    """Lines as markup that screen readers read out.

    Example:
        >>> announced("1 < 2")
        '<div role="status" aria-live="polite">1 &lt; 2</div>'
    """
    return f'<div role="status" aria-live="polite">{"<br>".join(map(html.escape, lines))}</div>'


def both(key: str) -> str:
    """A text in all languages of the interface, where the visitor's is not known.

    Example:
        >>> both("no_picture")
        'This is no picture. 这不是图片。'
    """
    return " ".join(TEXTS[key])
