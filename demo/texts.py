"""What the demo says, in English and Chinese."""

LANGUAGES = {"en": "English", "zh": "中文"}

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Draw and rank in your own language", "用您的语言作画与排序"),
    "intro": (
        "Prompts may be in any language of the model. Every picture is scored against its prompt: the cosine between "
        "-1 and 1, best first.",
        "提示词可用模型支持的任何语言。每张图片都按与提示词的相似度（余弦值，-1 到 1）排序，最好的在前。",
    ),
    "model": ("Model", "模型"),
    "language": ("Interface", "界面语言"),
    "draw": ("Draw", "作画"),
    "rank": ("Rank", "排序"),
    "prompt": ("What to draw", "画什么"),
    "negative": ("What to keep out", "不要什么"),
    "count": ("Pictures", "图片数量"),
    "keep": ("Keep the best", "保留最好的"),
    "steps": ("Steps", "步数"),
    "guidance": ("Guidance", "引导强度"),
    "seed": ("Seed of the first", "首张种子"),
    "settings": ("Settings", "设置"),
    "start": ("Draw", "开始作画"),
    "stop": ("Stop", "停止"),
    "vary": ("Vary", "换一组"),
    "pictures": ("Pictures, best first", "图片（最好的在前）"),
    "preview": ("Being drawn", "正在绘制"),
    "download": ("All of them, with their settings", "全部下载（含设置）"),
    "restore": ("Drop a picture of this page, to have its settings again", "放入本页生成的图片以恢复其设置"),
    "examples": ("Examples", "示例"),
    "uploads": ("Pictures to rank", "待排序的图片"),
    "prompts": ("Prompts, one a line, in any languages", "提示词（每行一个，语言不限）"),
    "rank_start": ("Rank", "排序"),
    "ranking": ("Cosines of pictures (rows) and prompts (columns)", "图片（行）与提示词（列）的余弦值"),
    "csv": ("As a table (CSV)", "下载表格 (CSV)"),
    "drawing": ("Picture {number} of {count}, step {step} of {steps}", "第 {number}/{count} 张，第 {step}/{steps} 步"),
    "drawn": ("{count} drawn, {kept} kept.", "已绘制 {count} 张，保留 {kept} 张。"),
    "ranked": ("{count} ranked. {broken}", "已排序 {count} 张。{broken}"),
    "left_out": ("Left out: {names}", "未能读取：{names}"),
    "empty_prompt": ("Say what to draw.", "请先输入提示词。"),
    "long_prompt": ("This prompt is too long: 2,000 characters at most.", "提示词过长：最多 2,000 个字符。"),
    "large_upload": ("This picture is too large.", "图片过大。"),
    "no_picture": ("This is no picture.", "这不是图片。"),
    "no_settings": ("This picture holds no settings of this page.", "这张图片不含本页的设置。"),
    "no_uploads": ("Give pictures to rank.", "请先放入图片。"),
    "too_many": ("Too many at once.", "一次太多了。"),
    "too_often": ("Too many calls; try again in a minute.", "请求过于频繁，请一分钟后再试。"),
    "broken_number": ("A picture came out as not a number.", "有一张图片未能成功生成。"),
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
