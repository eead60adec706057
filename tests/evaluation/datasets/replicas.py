"""The emoji bench written out in the layouts that people have data sets in."""

import base64
import io
import json
import shutil
import tarfile
from pathlib import Path

from altdiffusion_clip.emoji.captions import captions
from tests.pictures import PER_PAIR, HeldOutPicture, held_out_pictures

PICTURES: list[HeldOutPicture] = held_out_pictures()[::PER_PAIR]


def said(picture: HeldOutPicture, language: str, number: int = 1) -> list[str]:
    return captions(picture.concept, picture.colour, language)[:number]


def jpg(picture: HeldOutPicture, path: Path) -> None:
    """The very bytes of the PNG under the name that the layout asks for: Pillow looks inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture.path, path)


def write_muge(folder: Path, split: str = "valid", language: str = "zh") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}_imgs.tsv").open("w") as file:
        for number, picture in enumerate(PICTURES):
            file.write(f"{1000 + number}\t{base64.b64encode(picture.path.read_bytes()).decode()}\n")
    with (folder / f"{split}_texts.jsonl").open("w", encoding="utf-8") as file:
        for number, picture in enumerate(PICTURES):
            row = {"text_id": number, "text": said(picture, language)[0], "image_ids": [1000 + number]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return folder


def write_flickr30k(folder: Path, form: str = "karpathy.txt and #number") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{10_000 + number}" for number in range(len(PICTURES))]
    for name, picture in zip(names, PICTURES, strict=True):
        jpg(picture, folder / "flickr30k-images" / f"{name}.jpg")
    pairs = list(zip(names, PICTURES, strict=True))
    if form == "dataset_flickr30k.json":
        images = [
            {"filename": f"{n}.jpg", "split": "test", "imgid": i, "sentences": [{"raw": said(p, "en")[0]}]}
            for i, (n, p) in enumerate(pairs)
        ]
        images.append({"filename": "1.jpg", "split": "train", "sentences": [{"raw": "not of this split"}]})
        (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
        chinese = [f"{n}.jpg#0\t{said(p, 'zh')[0]}" for n, p in pairs]
    else:
        english = ["image,caption", *(f"{n}.jpg,{said(p, 'en')[0]}" for n, p in pairs)]
        (folder / "flickr30k_test_karpathy.txt").write_text("\n".join(english) + "\n")
        chinese = [f"{n}#zhm#0 {said(p, 'zh')[0]}" for n, p in pairs]
    (folder / "flickr30k_cn_test.txt").write_text("\n".join(chinese) + "\n", encoding="utf-8")
    return folder


def write_xtd(folder: Path, languages: tuple[str, ...] = ("en", "zh", "ja")) -> Path:
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(len(PICTURES))]
    for name, picture in zip(names, PICTURES, strict=True):
        jpg(picture, folder / "images" / name)
    (folder / "test_image_names.txt").write_text("\n".join(names) + "\n")
    for code in languages:
        text = "\n".join(said(picture, code)[0] for picture in PICTURES)
        file = f"test_1kcaptions_{'jp' if code == 'ja' else code}.txt"
        (folder / file).write_text(text + "\n", encoding="utf-8")
    return folder


def write_webdataset(folder: Path, language: str = "en", captions_each: int = 1, shards: int = 3) -> Path:
    (folder / "test").mkdir(parents=True, exist_ok=True)
    per_shard = -(-len(PICTURES) // shards)
    for shard in range(shards):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for number in range(shard * per_shard, min(len(PICTURES), (shard + 1) * per_shard)):
                picture = PICTURES[number]
                text = "\n".join(said(picture, language, captions_each)).encode()
                for ending, data in (("png", picture.path.read_bytes()), ("txt", text)):
                    info = tarfile.TarInfo(f"s{number:07d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def write_crossmodal(folder: Path) -> Path:
    rows = []
    for number, picture in enumerate(PICTURES):
        jpg(picture, folder / "images" / f"{number:016x}.jpg")
        rows.append(
            {
                "image/key": f"{number:016x}",
                "image/locale": "en",
                **{code: {"caption": said(picture, code), "caption/tokenized": []} for code in ("en", "zh", "fr")},
            }
        )
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def write_coco(folder: Path, form: str) -> Path:
    names = [f"COCO_val2014_{number:012d}" for number in range(len(PICTURES))]
    for name, picture in zip(names, PICTURES, strict=True):
        jpg(picture, folder / "val2014" / f"{name}.jpg")
    if form == "dataset_coco.json":
        images = [
            {"filename": f"{n}.jpg", "filepath": "val2014", "split": "test", "sentences": [{"raw": said(p, "en")[0]}]}
            for n, p in zip(names, PICTURES, strict=True)
        ]
        (folder / form).write_text(json.dumps({"images": images}))
    else:
        content = {
            "images": [{"id": i, "file_name": f"{n}.jpg"} for i, n in enumerate(names)],
            "annotations": [{"image_id": i, "caption": said(p, "en")[0]} for i, p in enumerate(PICTURES)],
        }
        (folder / "coco_test_karpathy.json").write_text(json.dumps(content))
    texts = folder / "coco-cn-version1805v1.1"
    texts.mkdir()
    (texts / "coco-cn_test.txt").write_text("\n".join(names) + "\n")
    written = [f"{n}#0\t{said(p, 'zh')[0]}" for n, p in zip(names, PICTURES, strict=True)]
    (texts / "imageid.human-written-caption.txt").write_text("\n".join(written) + "\n", encoding="utf-8")
    return folder


def write_jsonl(folder: Path) -> Path:
    with_captions = []
    for picture in PICTURES:
        jpg(picture, folder / "pictures" / picture.path.name)
        both = {code: said(picture, code) for code in ("en", "zh")}
        with_captions.append({"image": f"pictures/{picture.path.name}", "captions": both})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, with_captions)) + "\n")
    return folder
